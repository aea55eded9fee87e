"""A large file whose reading is interrupted: pieces are kept, little is read again, and the bytes are the same."""

import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_schemas.errors import InputDataError
from infra.workers.pieces import CommittedPieces
from stages.ingest.config import IngestConfig, SourceConfig
from stages.ingest.file_listing import SourceFile
from stages.ingest.formats import arrow_tables, delimited, json_lines, json_values, warc, wikipedia_dump
from stages.ingest.readers import read_file
from stages.ingest.stage import IngestStage
from stages.ingest.streams import bookmarks, decompression, text_encodings
from stages.ingest.streams.bookmarks import Bookmark, Bookmarks
from stages.ingest.streams.byte_streams import ByteCounter
from tests.stages.ingest.formats.test_warc import record as warc_record
from tests.stages.ingest.sample_files import COMPRESS, arrow
from tests.stages.ingest.sample_files import delimited as delimited_file
from tests.stages.ingest.test_stage import ids, ingest

RECORDS = 120
RANDOM = random.Random(1)
TEXTS = [f"Text {number}: “é” {RANDOM.randbytes(RANDOM.randrange(20, 90)).hex(' ')}." for number in range(RECORDS)]


class Killed(InputDataError):
    """Ends a run as it is."""


def _lines():
    lines = [json.dumps({"text": text}) for text in TEXTS]
    lines[17] = '{"text": "not'
    lines[40:42] = ["", json.dumps([{"text": "three"}, {"text": "in"}, {"text": "one line"}])]
    lines[90] = json.dumps({"text": "long " * 300})
    return "\n".join(lines).encode() + b"\n"


def _array():
    return json.dumps([{"text": text} for text in TEXTS], indent=1).encode()


def _table():
    some = [[str(number), text + '\nand "more"' * (number % 3 == 0)] for number, text in enumerate(TEXTS)]
    data = delimited_file([["id", "text"], *some])
    return (
        data[: len(data) // 2]
        + b'7,"opens\n'
        + b"".join(b"%d,row %d\n" % (n, n) for n in range(20))
        + data[len(data) // 2 :]
    )


def _dump():
    pages = [
        f"<page><title>T{number}</title><ns>{int(number % 5 == 1)}</ns><id>{number}</id><revision><text>{text}</text>"
        f"</revision></page>\n"
        for number, text in enumerate(TEXTS)
    ]
    pages[33] = "<page><title>broken</page>\n"
    pages[50] = "<page><title>long</title><ns>0</ns><text>" + "x" * 160_000 + "</text></page>\n"
    return [
        f"<mediawiki><siteinfo><base>https://x.org/wiki/A</base></siteinfo>\n{pages[0]}",
        *pages[1:],
        "</mediawiki>",
    ]


def _crawl():
    records = []
    for number, text in enumerate(TEXTS):
        records += [warc_record("request", b"GET /"), warc_record("conversion", text.encode(), number=number)]
    records[100] = b"no record\r\n\r\n"
    return records


def _members(kind, parts):
    """Members that end anywhere: at records for a dump and a crawl, in the middle of lines otherwise."""
    if isinstance(parts, bytes):
        cuts = sorted(random.Random(1).sample(range(len(parts)), 20))
        parts = [parts[a:b] for a, b in zip([0, *cuts], [*cuts, len(parts)], strict=True)]
    else:
        parts = [
            "".join(parts[i : i + 10]).encode() if isinstance(parts[0], str) else b"".join(parts[i : i + 2])
            for i in range(0, len(parts), 10 if isinstance(parts[0], str) else 2)
        ]
    return b"".join(map(COMPRESS[kind], parts))


def _whole(parts):
    return (
        parts if isinstance(parts, bytes) else "".join(parts).encode() if isinstance(parts[0], str) else b"".join(parts)
    )


def _files():
    contents = {"a.jsonl": _lines(), "a.csv": _table(), "a.xml": _dump(), "a.warc": _crawl()}
    files = {
        "a.json": _array(),
        "wide.jsonl": _lines().decode().encode("utf-16"),
        "mac.jsonl": _lines().replace(b"\n", b"\r"),
    }
    for name, content in contents.items():
        files |= {f"{name}{kind}": compress(_whole(content)) for kind, compress in COMPRESS.items()}
        files |= {f"members/{name}{kind}": _members(kind, content) for kind in COMPRESS if kind}
    files["gz.wide.jsonl.gz"] = COMPRESS[".gz"](files["wide.jsonl"])
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": TEXTS}), buffer, row_group_size=100)
    files |= {"a.parquet": buffer.getvalue(), "a.arrow": arrow(pa.ipc.new_file, pa.table({"text": TEXTS}))}
    for name in [*files]:
        if name.endswith(".gz") or (name.startswith("members/") and name.endswith(tuple(filter(None, COMPRESS)))):
            data = files[name]
            files[f"cut/{name}"] = data[: len(data) * 2 // 3]
            files[f"damaged/{name}"] = data[: len(data) // 2] + b"\x55\xaa" * 8 + data[len(data) // 2 + 16 :]
    return files


FILES = _files()
WITHOUT_BOOKMARKS = {"a.json", "a.parquet", "a.arrow"}
RESUMED = ["a.jsonl", "wide.jsonl", "a.jsonl.bz2", "members/a.jsonl.zst", "cut/a.jsonl.gz", "a.json", "a.parquet",
           "members/a.xml.bz2", "damaged/members/a.warc.gz", "a.csv.xz"]  # fmt: skip


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Steps as small beside these files as the real ones are beside large files."""
    monkeypatch.setattr(bookmarks, "SPACING_BYTES", 1_500)
    monkeypatch.setattr(decompression, "INPUT_BYTES", 1 << 9)
    monkeypatch.setattr(decompression, "OUTPUT_BYTES", 1 << 11)
    monkeypatch.setattr(text_encodings, "ASCII_BYTES", 1_500)


def read_from(folder, name, marks):
    path = folder / name.replace("/", "_")
    path.write_bytes(FILES[name])
    file = SourceFile(f"file://{path}", path.name, len(FILES[name]), "")
    return list(read_file(file, SourceConfig(path=str(path)), 3_000, ByteCounter(), bookmarks=marks))


def mostly_slow(names, each):
    """The names, of which all but every n-th are tried with the slow tests."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (number % each > 0)) for number, name in enumerate(names)]


class Recorded(Bookmarks):
    def __init__(self):
        super().__init__()
        self.all = []

    def add(self, bookmark):
        super().add(bookmark)
        self.all.append(Bookmark.from_json(json.loads(json.dumps(bookmark.as_json()))))


@pytest.mark.parametrize("name", mostly_slow(FILES, 7))
def test_reading_from_any_bookmark_gives_the_remaining_records(tmp_path, name):
    marks = Recorded()
    results = read_from(tmp_path, name, marks)
    positions = [result.position for result in results]
    assert positions == sorted(set(positions))
    assert len(marks.all) >= (0 if name in WITHOUT_BOOKMARKS else 5)
    assert all(mark.member.offset > 0 for mark in marks.all[3:]) or not name.startswith("members/")
    for mark in marks.all[:: len(marks.all) // 4 or 1]:
        [*_, first] = [position for position in positions if position >= mark.position][:2]
        assert read_from(tmp_path, name, Bookmarks(first, mark)) == results[positions.index(first) :]


@pytest.mark.parametrize("name", sorted(WITHOUT_BOOKMARKS))
def test_formats_without_bookmarks_are_read_again_up_to_the_record(tmp_path, name):
    results = read_from(tmp_path, name, Bookmarks())
    assert read_from(tmp_path, name, Bookmarks(70)) == results[70:]


def config(path, **settings):
    limits = {"partition_bytes": 4_000, "max_document_bytes": 3_000, "reject_share_after": 10**9}
    return IngestConfig(path=str(path), **(limits | settings))


def stop_after(monkeypatch, pieces, error=Killed):
    """Let a process die right after it committed so many pieces."""
    commit = CommittedPieces.commit
    left = [pieces]

    def patched(self, *args):
        commit(self, *args)
        left[0] -= 1
        if left[0] == 0:
            raise error

    monkeypatch.setattr(CommittedPieces, "commit", patched)


def content(writer):
    return {path: entry.sha256 for path, entry in writer.files.items()}, dict(writer.counts)


@pytest.mark.parametrize("name", mostly_slow(RESUMED, 3))
def test_a_file_that_is_resumed_after_each_piece_gives_the_bytes_of_an_undisturbed_run(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(FILES[name])
    undisturbed = ingest(config(path), f"{tmp_path}/one")
    pieces = sum(name.startswith("funnel/") and "_" in name for name in undisturbed.files)
    assert pieces > 3
    for _ in range(pieces):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            stop_after(patched, 1)
            ingest(config(path), f"{tmp_path}/two")
    assert content(ingest(config(path), f"{tmp_path}/two")) == content(undisturbed)
    assert len(set(ids(undisturbed))) == len(ids(undisturbed))


@pytest.mark.parametrize(
    ("name", "module", "parser"),
    [
        ("a.jsonl.bz2", json_lines, "record"), ("members/a.csv.gz", delimited, "_from_row"),
        ("a.xml.zst", wikipedia_dump, "_read_page"), ("a.warc.gz", warc, "_read_record"),
        ("a.parquet", arrow_tables, "record_of"), ("a.arrow", arrow_tables, "record_of"),
    ],
)  # fmt: skip
def test_few_records_are_parsed_again(tmp_path, monkeypatch, name, module, parser):
    path = tmp_path / name.rpartition("/")[2]
    path.write_bytes(FILES[name])
    parsed, parse = [], getattr(module, parser)

    def counted(*args):
        parsed.append(args)
        return parse(*args)

    monkeypatch.setattr(module, parser, counted)
    monkeypatch.setattr(arrow_tables, "MAX_ROWS", 8)
    whole = config(path, partition_bytes=4_000 if path.suffix != ".parquet" else 10**5)
    monkeypatch.setattr("stages.ingest.piece.Piece.is_full", lambda self, row: len(self._rows["documents"]) >= 20)
    ingest(whole, f"{tmp_path}/one")
    all_records = len(parsed)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        stop_after(patched, 4)
        ingest(whole, f"{tmp_path}/two")
    parsed.clear()
    ingest(whole, f"{tmp_path}/two")
    assert len(parsed) <= all_records - 80 + 22, "behind 80 documents, but for those since the bookmark"


def test_a_forced_attempt_ignores_the_pieces_of_others_and_resumes_its_own(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_bytes(FILES["a.jsonl"])
    parsed = []
    monkeypatch.setattr(json_lines, "record", lambda *args: parsed.append(args) or json_values.record(*args))
    for pieces in (4, 1):
        parsed.clear()
        with monkeypatch.context() as patched, pytest.raises(Killed):
            stop_after(patched, pieces)
            ingest(config(path), f"{tmp_path}/s", attempt=str(pieces), fresh=pieces == 1)
        assert parsed[0][1] == 0, "the first attempt's pieces are not the second's"
    undisturbed = content(ingest(config(path), f"{tmp_path}/one"))
    parsed.clear()
    assert content(ingest(config(path), f"{tmp_path}/s", attempt="1", fresh=True)) == undisturbed
    assert 0 < parsed[0][1] < 10


@pytest.mark.parametrize("change", ["other settings", "a damaged file", "a damaged marker", "no first piece"])
def test_pieces_that_do_not_fit_are_read_again(tmp_path, monkeypatch, change):
    path, store = tmp_path / "a.jsonl", tmp_path / "two"
    path.write_bytes(FILES["a.jsonl"])
    after = config(path, partition_bytes=3_000) if change == "other settings" else config(path)
    undisturbed = content(ingest(after, f"{tmp_path}/one"))
    with monkeypatch.context() as patched, pytest.raises(Killed):
        stop_after(patched, 4)
        ingest(config(path), str(store))
    markers = sorted(store.glob("ingest/*/parts/read.pieces/00000/*.json"))
    assert [marker.name for marker in markers] == [f"{number:06d}.json" for number in range(4)]
    if change == "a damaged file":
        entry = next(entry for entry in json.loads(markers[2].read_text())["files"])
        (markers[2].parents[3] / entry["part"]).write_bytes(b"short")
    elif change == "a damaged marker":
        markers[1].write_text('{"attempt": "a"')
    elif change == "no first piece":
        markers[0].unlink()
    assert content(ingest(after, str(store))) == undisturbed


def test_a_file_that_changes_while_it_is_read_commits_no_piece_of_the_change(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_bytes(FILES["a.jsonl"])
    listing = IngestStage().list_sources(config(path), "").listing
    commit = CommittedPieces.commit

    def change(self, files, counts, state):
        commit(self, files, counts, state)
        path.write_bytes(FILES["a.jsonl"].replace(b"Text", b"Other"))

    with (
        monkeypatch.context() as patched,
        pytest.raises(InputDataError, match=r"a\.jsonl changed after its source was"),
    ):
        patched.setattr(CommittedPieces, "commit", change)
        ingest(config(path), f"{tmp_path}/s", listing=listing)
    assert len([*tmp_path.glob("s/ingest/*/parts/read.pieces/00000/*")]) == 1
