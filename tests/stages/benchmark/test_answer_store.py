import pytest

from infra.filesystem import Folder
from stages.benchmark.answer_store import AnswerStore


@pytest.mark.parametrize("text", ["one\u2028two\u2029three", "one\x85two", "\x0b\x1c\n\r\\ \ud7ff", ""])
def test_answers_with_any_line_ends_are_found_again(tmp_path, text):
    for key in ("first", "second"):
        with AnswerStore(Folder(str(tmp_path)), flush_seconds=0) as store:
            store.add({key: text})
    again = AnswerStore(Folder(str(tmp_path)))
    assert len(again) == 2 and again["first"] == again["second"] == text
