import bz2
import gzip
import json
import lzma

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_schemas.errors import InputDataError
from stages.ingest.text_files import Record, Reject, SourceFile, list_files, read_file

COMPRESS = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}  # fmt: skip


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def read(path, text_field="text"):
    return [found for file in list_files(str(path)) for found in read_file(file, text_field)]


@pytest.mark.parametrize("ending", COMPRESS)
def test_json_lines_in_every_compression(tmp_path, ending):
    (tmp_path / f"a.jsonl{ending}").write_bytes(COMPRESS[ending](lines({"text": "one", "id": "x"}, {"text": "two"})))
    assert read(tmp_path / "*") == [
        Record(f"a.jsonl{ending}", 0, "one", id="x"),
        Record(f"a.jsonl{ending}", 1, "two"),
    ]


def test_parquet_and_plain_text_and_another_field(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    pq.write_table(pa.table({"body": ["one", None], "url": ["u", "v"]}), tmp_path / "deep" / "b.parquet")
    (tmp_path / "deep" / "er" / "c.md").write_text("# Titel ü", encoding="utf-8")
    (tmp_path / "deep" / "d.bin").write_bytes(b"ignored")
    found = read(tmp_path / "**" / "*", "body")
    assert found == [
        Record("deep/b.parquet", 0, "one", url="u"),
        Reject("deep/b.parquet", 1, "no text: field 'body' is NoneType"),
        Record("deep/er/c.md", 0, "# Titel ü"),
    ]


def test_broken_records_are_rejected_one_by_one(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(
        lines({"text": "good"}) + b"[" * 100_000 + b"\n" + lines([1], {"other": 1}, {"text": 3}) + b"\n\xff\xfe\n"
        b'{"text": "\\ud800"}\n' + lines({"text": "good too"})
    )  # fmt: skip
    found = read(tmp_path / "a.jsonl")
    assert [one.position for one in found if isinstance(one, Record)] == [0, 8]
    assert [one.reason.split(":")[0] for one in found if isinstance(one, Reject)] == [
        "not JSON", "not an object", "no text", "no text", "not JSON", "not Unicode",
    ]  # fmt: skip


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
def test_a_truncated_file_gives_what_it_holds_and_one_reject(tmp_path, ending):
    data = COMPRESS[ending](lines(*({"text": f"{number} " * 200} for number in range(3000))))
    (tmp_path / f"a.jsonl{ending}").write_bytes(data[: len(data) // 2])
    found = read(tmp_path / "*")
    assert isinstance(found[-1], Reject)
    assert found[-1].reason.startswith("unreadable from here on")
    assert all(isinstance(one, Record) for one in found[:-1])


def test_a_zstandard_file_of_several_frames_is_read_whole_and_one_cut_between_lines_is_noticed(tmp_path):
    compressor = zstandard.ZstdCompressor()
    halves = [lines(*({"text": f"{number} " * 200} for number in part)) for part in (range(500), range(500, 900))]
    (tmp_path / "whole.jsonl.zst").write_bytes(b"".join(map(compressor.compress, halves)))
    assert [one.position for one in read(tmp_path / "whole.jsonl.zst")] == list(range(900))
    open_frame = compressor.compressobj()
    cut = open_frame.compress(halves[0]) + open_frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    (tmp_path / "cut.jsonl.zst").write_bytes(cut)
    *records, last = read(tmp_path / "cut.jsonl.zst")
    assert len(records) == 500
    assert last.reason == "unreadable from here on: EOFError: the file ends inside a zstandard frame"


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("truth", COMPRESS)
def test_a_wrong_compression_is_one_reject(tmp_path, ending, truth):
    data = lines(*({"text": f"{number} " * 50} for number in range(100)))
    (tmp_path / f"a.jsonl{ending}").write_bytes(COMPRESS[truth](data))
    found = read(tmp_path / "*")
    assert len(found) == (100 if ending == truth else 1)
    assert isinstance(found[0], Record if ending == truth else Reject)


def test_paths_do_not_change_when_more_files_come(tmp_path):
    for folder in ("a", "b[1]"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text("text")
        assert "a/x.txt" in {file.path for file in list_files(f"{tmp_path}/**/*.txt")}
    assert [file.path for file in list_files(str(tmp_path / "b[1]"))] == ["x.txt"]
    assert [file.path for file in list_files(str(tmp_path / "b[1]" / "x.txt"))] == ["x.txt"]


def test_buckets_with_nothing_in_common():
    memory = fsspec.filesystem("memory")
    for bucket in ("one", "two"):
        memory.pipe(f"/{bucket}-of-headrace/x.txt", b"text")
    assert [file.path for file in list_files("memory://*-of-headrace/x.txt")] == [
        "one-of-headrace/x.txt",
        "two-of-headrace/x.txt",
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=400), ending=st.sampled_from(["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "txt", "txt.xz"])
)
def test_no_bytes_crash_the_reader(tmp_path, data, ending):
    path = tmp_path / f"fuzz.{ending}"
    path.write_bytes(data)
    for found in read_file(SourceFile(f"file://{path}", path.name, len(data), ""), "text"):
        assert isinstance(found, Record | Reject)


def test_nothing_to_read_says_what_is_accepted(tmp_path):
    with pytest.raises(InputDataError, match=r"no text files match .*Accepted are \.jsonl"):
        list_files(str(tmp_path / "*.jsonl"))
    (tmp_path / "a.pdf").write_bytes(b"x")
    with pytest.raises(InputDataError, match="1 files match, none of an accepted kind"):
        list_files(str(tmp_path / "*"))


def test_a_changed_file_has_another_fingerprint(tmp_path):
    import os

    (tmp_path / "a.txt").write_text("one")
    before = list_files(str(tmp_path / "*"))
    assert before == list_files(str(tmp_path)), "a folder means everything in it"
    os.utime(tmp_path / "a.txt", (1, 1))
    assert list_files(str(tmp_path / "*")) != before


def test_real_corpora(shared_data):
    found = read(shared_data / "corpus" / "technical.jsonl.gz")
    assert len(found) == 3040
    assert all(isinstance(one, Record) for one in found)
