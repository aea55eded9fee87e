import os
import sys

import fsspec
import pyarrow as pa
import pytest
from fsspec.registry import _registry

from data_schemas.errors import EnvironmentProblem, InputDataError
from stages.ingest.config import SourceConfig
from stages.ingest.file_listing import list_files
from tests.stages.ingest.sample_files import TEXTS, arrow, json_lines, parquet, read, texts


def listed(pattern, **source):
    return list_files(SourceConfig(path=str(pattern), **source)).files


def paths(pattern, **source):
    return [file.path for file in listed(pattern, **source)]


def test_paths_do_not_change_when_more_files_come(tmp_path):
    for folder in ("a", "b[1]"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text("text")
        assert "a/x.txt" in paths(f"{tmp_path}/**/*.txt")
    assert paths(tmp_path / "b[1]") == ["x.txt"]
    assert paths(tmp_path / "b[1]" / "x.txt") == ["x.txt"]
    assert texts(read(tmp_path / "b[1]")) == ["text"]


def test_buckets_with_nothing_in_common():
    memory = fsspec.filesystem("memory")
    for bucket in ("one", "two"):
        memory.pipe(f"/{bucket}-of-headrace/x.txt", b"text")
    assert paths("memory://*-of-headrace/x.txt") == ["one-of-headrace/x.txt", "two-of-headrace/x.txt"]
    assert texts(read("memory://*-of-headrace/x.txt")) == ["text", "text"]


def test_an_error_without_files_lists_the_accepted_extensions(tmp_path):
    with pytest.raises(InputDataError, match=r"no text files match .*accepted are \.jsonl"):
        listed(tmp_path / "*.jsonl")
    (tmp_path / "lines.bak").write_bytes(json_lines({"text": "x"}))
    with pytest.raises(InputDataError, match=r"1 files match and are passed over: 1 \.bak files \(lines\.bak\)"):
        listed(tmp_path / "*")
    assert texts(read(tmp_path / "*", format="json_lines")) == ["x"], "a configured format needs no ending"


def test_a_changed_file_has_another_fingerprint(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    before = listed(tmp_path / "*")
    assert before == listed(tmp_path), "a folder means everything in it"
    os.utime(tmp_path / "a.txt", (1, 1))
    assert listed(tmp_path / "*") != before


@pytest.mark.parametrize(("url", "package"), [("s3://bucket/*.jsonl", "s3fs"), ("gs://bucket/*.jsonl", "gcsfs")])
def test_an_object_store_without_its_package_names_it(url, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "infra.store.s3", raising=False)
    monkeypatch.delitem(_registry, url.split(":")[0], raising=False)  # another test may have opened it
    with pytest.raises(EnvironmentProblem, match=f"pip install {package}"):
        listed(url)


def test_an_unknown_protocol_is_the_users_error():
    with pytest.raises(InputDataError, match="cannot list foo://x"):
        listed("foo://x/*.jsonl")


def test_web_servers_single_files_pages_of_links_and_globs(web):
    folder, url = web
    (folder / "a").mkdir()
    (folder / "a" / "x.jsonl").write_bytes(json_lines({"text": "lines"}))
    (folder / "y.txt").write_text("plain")
    (folder / "z.parquet").write_bytes(parquet())
    (folder / "z.arrow").write_bytes(arrow(pa.ipc.new_file))
    assert paths(f"{url}/y.txt") == ["y.txt"]
    assert paths(f"{url}/y.txt?download=1", format="plain") == ["y.txt"]
    assert paths(f"{url}/*.txt") == ["y.txt"]
    assert paths(f"{url}/") == ["a/x.jsonl", "y.txt", "z.arrow", "z.parquet"]
    [plain] = read(f"{url}/y.txt")
    assert (plain.text, plain.url) == ("plain", f"{url}/y.txt")
    assert texts(read(f"{url}/**")) == ["lines", "plain", *TEXTS, *TEXTS], "what cannot be sought is copied first"
    before = listed(f"{url}/*.txt")
    assert before[0].bytes == 5
    os.utime(folder / "y.txt", (1, 1))
    assert listed(f"{url}/*.txt") != before
    with pytest.raises(InputDataError, match="cannot list"):
        listed(f"{url}/none.txt")


def test_folders_that_may_not_be_read_are_named(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text("A text.")
    scan = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for pattern in (tmp_path, tmp_path / "**" / "*.txt"):
        listing = list_files(SourceConfig(path=str(pattern)))
        assert [file.path for file in listing.files] == ["a/x.txt"]
        assert [*listing.passed_over] == [("b", "a folder that you may not read")]


def test_names_of_local_files_with_colons_and_both_endings_of_compressed_ones(tmp_path):
    for name in ("a::b.txt", "c.tar.gz", "d.parquet.gz", "e.bak"):
        (tmp_path / name).write_text("A text.")
    assert paths(tmp_path / "a::b.txt") == ["a::b.txt"]
    assert [reason for _, reason in list_files(SourceConfig(path=str(tmp_path))).passed_over] == [
        ".tar.gz files", ".parquet.gz files", ".bak files",
    ]  # fmt: skip
