"""What is read, passed over and refused among the files of a source; ids and keys that hold no secrets."""

import bz2
import gzip
import json
import os
import shutil
import uuid
from pathlib import Path

import pytest

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from data_schemas.errors import ConfigError, InputDataError
from data_schemas.public_urls import PUBLIC, public_text, public_url
from flows.config.run_config import RunConfig
from infra.store.filesystem import Folder
from infra.workers.partitions import PartitionWriter
from stages.ingest.config import IngestConfig, SourceConfig
from stages.ingest.file_listing import check_unchanged, list_files
from stages.ingest.partition import read_partition
from stages.ingest.stage import IngestStage
from stages.ingest.units import list_sources
from tests.flows.mini import mini_config
from tests.stages.ingest.sample_files import COMPRESS, json_lines, parquet, read, read_bytes, texts
from tests.stages.ingest.test_stage import ids, ingest, rows, write

LINES = json_lines({"text": "x"})
GZIPPED = gzip.compress(LINES, mtime=0)  # pytest-xdist compares the names of tests, in which these bytes are
DUMP = b"<mediawiki><page><title>T</title><ns>0</ns><id>1</id><text>Words of a page.</text></page></mediawiki>"
PAGE = (
    b"<!DOCTYPE html><html><body><p>"
    + b"Some words of a page that is long enough to be its text. " * 9
    + b"</p></body></html>"
)


def reasons(pattern: object, store: str = "") -> dict[str, str]:
    return dict(list_files(SourceConfig(path=str(pattern)), store).passed_over)


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("enwiki-20240101-pages-articles-multistream1.xml-p1p41242.bz2", bz2.compress(DUMP), "Words of a page."),
        ("part-00000", LINES, "x"), ("part-00000.gz", GZIPPED, "x"),
        ("DATA.JSONL.GZ", GZIPPED, "x"),
        ("lines.jsonl-00000-of-00010", LINES, "x"), ("lines.gz", GZIPPED, "x"),
        ("lines.jsonl.gz", LINES, "x"), ("lines.jsonl", GZIPPED, "x"), ("array", b'[{"text": "x"}]', "x"),
        ("pretty", b'{\n  "text": "x"\n}', "x"), ("README", b"plain words\n", "plain words\n"),
        ("utf16.jsonl.gz", LINES.decode().encode("utf-16"), "x"),
    ],
)  # fmt: skip
def test_the_content_tells_what_the_name_does_not(tmp_path, name, data, text):
    (tmp_path / name).write_bytes(data)
    assert texts(read(tmp_path)) == [text]


@pytest.mark.parametrize("name", ["table", "table.0001"])
def test_tables_and_pages_are_known_by_their_content(tmp_path, name):
    (tmp_path / name).write_bytes(parquet())
    assert len(texts(read(tmp_path))) == 40
    (tmp_path / name).write_bytes(PAGE)
    assert texts(read(tmp_path))[0].startswith("Some words")


def test_what_is_passed_over_is_counted_and_named(tmp_path):
    for name in ("a.jsonl", "b.jsonl.bak", "c.PDF", ".git/x.jsonl", "._a.jsonl", "deep/.cache/y.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(LINES)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "blob").write_bytes(bytes(range(256)))
    assert reasons(f"{tmp_path}/**/*") == {
        ".git/x.jsonl": "hidden", "._a.jsonl": "hidden", "deep/.cache/y.jsonl": "hidden", "_SUCCESS": "empty",
        "b.jsonl.bak": ".bak files", "c.PDF": ".PDF files", "blob": "of unknown content",
    }  # fmt: skip
    assert reasons(f"{tmp_path}/*")["deep"].startswith("a folder; **")
    assert texts(read(f"{tmp_path}/deep/.cache/*")) == texts(read(f"{tmp_path}/.git/*.jsonl")) == ["x"], "on request"
    writer = ingest(IngestConfig(path=f"{tmp_path}/**/*"))
    assert (writer.counts["files_read"], writer.counts["files_passed_over"]) == (1, 7)
    first = writer.metrics["passed_over"][0]
    assert (first["reason"], first["files"], first["examples"]) == (
        "hidden", 3, ["._a.jsonl", ".git/x.jsonl", "deep/.cache/y.jsonl"],
    )  # fmt: skip
    for name in ("a", "b", "c"):
        (tmp_path / "capped" / name).mkdir(parents=True)
        (tmp_path / "capped" / name / "x.jsonl").write_bytes(LINES)
    listing = list_sources(IngestConfig(path=f"{tmp_path}/capped", max_source_bytes=2 * len(LINES)))
    assert [reason for _, reason in listing.passed_over] == ["beyond max_source_bytes"]


def test_artifact_stores_are_never_input(tmp_path):
    (tmp_path / "a.parquet").write_bytes(parquet())
    for path in (
        f"store/ingest/{'0a' * 32}/parts/data/x.parquet",
        "store/new.parquet",
        f"old/dedup/{'0a' * 32}/r/y.parquet",
    ):
        (tmp_path / path).parent.mkdir(parents=True) if not (tmp_path / path).parent.exists() else None
        (tmp_path / path).write_bytes(parquet())
    for store in (f"{tmp_path}/store", f"file://{tmp_path}/store", os.path.relpath(tmp_path / "store")):
        listing = list_files(SourceConfig(path=f"{tmp_path}/**/*.parquet"), store)
        assert [file.path for file in listing.files] == ["a.parquet"]
        assert {reason for _, reason in listing.passed_over} == {"part of an artifact store"}


def test_links(tmp_path):
    """Folders of Hugging Face's cache hold links to files alone; a loop of links is not followed."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1f").write_bytes(LINES)
    data = tmp_path / "snapshot"
    data.mkdir()
    for name, target in (
        ("a.jsonl", "../blobs/1f"), ("b.jsonl", "../blobs/1f"), ("loop", "."), ("up", ".."), ("gone.jsonl", "nothing"),
        ("self.jsonl", "self.jsonl"),
    ):  # fmt: skip
        (data / name).symlink_to(target)
    assert texts(read(f"{data}/**/*")) == texts(read(data)) == texts(read(data / "a.jsonl")) == ["x"]
    assert reasons(data) == {
        "b.jsonl": "a link to a file that is read itself", "loop": "a link to a folder", "up": "a link to a folder",
        "gone.jsonl": "a broken link", "self.jsonl": "a broken link",
    }  # fmt: skip
    [file] = list_files(SourceConfig(path=str(data))).files
    os.utime(tmp_path / "blobs" / "1f", (1, 1))
    assert list_files(SourceConfig(path=str(data))).files != [file]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(LINES * 2), "it had 14 bytes then and has 28 now"),
        (lambda path: os.utime(path, (1, 1)), "it was written again"),
        (lambda path: path.unlink(), "cannot read|it is gone now"),
    ],
)
def test_a_file_that_changes_after_it_was_listed_stops_the_run(tmp_path, change, message):
    path = Path(write(tmp_path / "in" / "a.jsonl", {"text": "x"}))
    config = IngestConfig(path=str(path.parent), partition_bytes=1_000)
    listing = IngestStage().list_sources(config, "").listing
    check_unchanged(listing.units[0].file)
    change(path)
    with pytest.raises(InputDataError, match=message):
        check_unchanged(listing.units[0].file)
    with pytest.raises(InputDataError, match=message):
        read_partition(
            config, 100, ("00000", listing.units), PartitionWriter(Folder(f"{tmp_path}/s"), "ingest", RAW_DOCUMENTS)
        )


def test_a_run_reads_what_was_listed_and_nothing_else(tmp_path, monkeypatch):
    from stages.ingest import units

    write(tmp_path / "in" / "a.jsonl", {"text": "x"})
    config = IngestConfig(path=f"{tmp_path}/in/*")
    listed = IngestStage().list_sources(config, "")
    write(tmp_path / "in" / "b.jsonl", {"text": "y"})
    monkeypatch.setattr(units, "list_files", None)
    assert ids(ingest(config, listing=listed.listing)) == ["files/a.jsonl#0"]


@pytest.mark.parametrize(
    "pairs", [(("a", "b/c"), ("a/b", "c")), (("a%2Fb", "c"), ("a/b", "c")), (("a", "b%2Fc"), ("a", "b/c"))]
)
def test_ids_never_collide(tmp_path, pairs):
    sources = []
    for number, (name, path) in enumerate(pairs):
        write(tmp_path / str(number) / f"{path}.jsonl", {"text": name})
        sources.append({"path": f"{tmp_path}/{number}/**/*.jsonl", "source": name})
    assert len(set(ids(ingest(IngestConfig(sources=sources))))) == 2


@pytest.mark.parametrize(
    "name", ["a::b.jsonl", "100%.jsonl", "a#0.jsonl", "a?b.jsonl", "é ü.jsonl", "a:b.jsonl", "[x].jsonl"]
)
def test_odd_file_names(tmp_path, name):
    write(tmp_path / name, {"text": "x"})
    assert ids(ingest(IngestConfig(path=f"{tmp_path}/*.jsonl"))) == [f"files/{name}#0"]


def test_a_file_name_that_is_not_utf8(tmp_path):
    name = b"caf\xe9.jsonl"  # as Latin-1 machines wrote it
    try:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))).write_bytes(LINES)
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + b"\xff.bin"))).write_bytes(b"\0")
    except OSError:
        pytest.skip("this filesystem takes UTF-8 names only")
    config = IngestConfig(path=f"{tmp_path}/*")
    listing = list_sources(config, "")
    assert ids(ingest(config, listing=listing)) == [r"files/caf\xe9.jsonl#0"]
    assert [row.path for row in listing.passed_over] == [r"\xff.bin"]
    assert json.dumps(listing.fingerprints).encode()


SECRET = "https://me:word@host.org/texts/a.jsonl?X-Amz-Signature=5ec4e7&id=1#frag"


@pytest.mark.parametrize(
    ("url", "public"),
    [
        (SECRET, "https://host.org/texts/a.jsonl"),
        ("ftp://me:word@host/a/b-?.txt", "ftp://host/a/b-?.txt"),
        ("./texts/part-?.jsonl", "./texts/part-?.jsonl"), ("s3://bucket/a?.jsonl", "s3://bucket/a?.jsonl"),
        ("zip://*.csv::https://u:p@h/a.zip?token=t", "zip://*.csv::https://h/a.zip"),
        ("abfs://container@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
        ("hf://datasets/o/n@main/x.parquet", "hf://datasets/o/n@main/x.parquet"),
        ("github://org:repo@main/a.md", "github://org:repo@main/a.md"),
    ],
)  # fmt: skip
def test_public_forms(url, public):
    assert public_url(url) == public
    assert public_text(f"404, url='{url}' (see {url})") == f"404, url='{public}' (see {public})"


def test_signatures_are_in_no_key_and_no_record():
    keys = []
    for url in (SECRET, SECRET.replace("5ec4e7", "0ther").replace("me:word", "you:w0rd")):
        config = mini_config(url)
        assert config.ingest.path == url, "it is needed to open the file"
        keys.append(json.dumps(config.stage_config("ingest").key_fields()))
        for text in (keys[-1], json.dumps(config.model_dump(mode="json", context=PUBLIC))):
            assert "host.org/texts/a.jsonl" in text
            assert not any(secret in text for secret in ("5ec4e7", "0ther", "me:word", "w0rd", "frag"))
    assert keys[0] == keys[1]
    copied = RunConfig.model_validate(config.model_dump(mode="json"))
    assert copied.ingest.path == url


def test_signatures_are_in_no_message_document_or_artifact(tmp_path, web):
    folder, url = web
    (folder / "page.html").write_bytes(PAGE)
    secret = url.replace("://", "://me:word@") + "/page.html?sig=5ec4e7"
    listing = list_sources(IngestConfig(path=secret))
    assert listing.fingerprints.keys() == {f"{url}/page.html"}
    other = list_sources(IngestConfig(path=secret.replace("5ec4e7", "0ther")))
    assert other.fingerprints == listing.fingerprints
    writer = ingest(IngestConfig(path=secret), f"file://{tmp_path}/store")
    [document] = rows(writer, "documents")
    assert (document["id"], document["url"]) == ("files/page.html#0", f"{url}/page.html")
    (folder / "page.html").unlink()
    for failing in (lambda: list_sources(IngestConfig(path=secret)), lambda: check_unchanged(listing.units[0].file)):
        with pytest.raises(InputDataError) as raised:
            failing()
        assert not any(word in str(raised.value) for word in ("5ec4e7", "word@"))


def test_files_of_a_chained_filesystem(tmp_path):
    write(tmp_path / "zipped" / "in" / "a.jsonl", {"text": "x"})
    archive = shutil.make_archive(str(tmp_path / uuid.uuid4().hex), "zip", tmp_path / "zipped")
    assert texts(read(f"zip://in/*.jsonl::file://{archive}")) == ["x"]


def test_two_queries_of_one_address_are_refused(web):
    folder, url = web
    (folder / "a.jsonl").write_bytes(LINES)
    with pytest.raises(ConfigError, match="in which queries of web addresses do not count"):
        list_sources(IngestConfig(sources=[{"path": f"{url}/a.jsonl?id={number}"} for number in range(2)]))


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_damaged_head_is_not_taken_for_text(tmp_path, ending):
    if ending:
        data = b"\0" + COMPRESS[ending](LINES)[1:]
        [failure] = read_bytes(tmp_path, f"a.jsonl{ending}", data)
        assert failure.reason == "unreadable"


def test_the_names_of_the_report(shared_data):
    assert len(texts(read(shared_data / "odd_inputs" / "dump_names"))) == 2
