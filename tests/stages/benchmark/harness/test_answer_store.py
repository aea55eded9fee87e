import pytest

from infra.store.filesystem import Folder
from stages.benchmark.harness.answer_store import AnswerStore


@pytest.mark.parametrize("text", ["one\u2028two\u2029three", "one\x85two", "\x0b\x1c\n\r\\ \ud7ff", ""])
def test_answers_with_any_line_ends_are_found_again(tmp_path, text):
    for key in ("first", "second"):
        with AnswerStore(Folder(str(tmp_path)), flush_seconds=0) as store:
            store.add({key: text})
    again = AnswerStore(Folder(str(tmp_path)))
    assert len(again) == 2 and again["first"] == again["second"] == text


def test_partially_written_files_are_not_read(tmp_path):
    with AnswerStore(Folder(str(tmp_path))) as store:
        store.add({"first": 1})
    (tmp_path / ".000001.jsonl.0123abcd.tmp").write_text('["second", "hal')
    with AnswerStore(Folder(str(tmp_path))) as store:
        assert len(store) == 1
        store.add({"second": 2})
    assert AnswerStore(Folder(str(tmp_path)))["second"] == 2
