"""Files that are no text, files in files, and texts in encodings without a mark."""

import gzip
import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from stages.ingest.binary_content import is_binary_text
from stages.ingest.formats.plain_text import decode
from stages.ingest.records import Failure
from tests.stages.ingest.sample_files import TEXTS, json_lines, parquet, read, read_bytes, reasons, texts

NOISE = random.Random(0).randbytes(3_000)
LINES = json_lines(*({"text": text} for text in TEXTS))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("a.jsonl", LINES)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as file:
            entry = tarfile.TarInfo("a.jsonl")
            entry.size = len(LINES)
            file.addfile(entry, io.BytesIO(LINES))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.jsonl", "a.csv", "a.xml", "a.wiki", "a.rst"])
@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (archive("zip"), "a ZIP archive"), (archive("tar"), "a tar archive"), (gzip.compress(archive("tar")), "a tar"),
        (b"%PDF-1.4\n" + NOISE, "a PDF document"), (b"\x89PNG\r\n\x1a\n" + NOISE, "a PNG image"),
        (b"\x7fELF\x02\x01\x01" + bytes(200), "a program"), (parquet(), "a Parquet file"),
    ],
)  # fmt: skip
def test_a_binary_file_is_one_reject_that_counts_whole(tmp_path: Path, name: str, data: bytes, kind: str) -> None:
    [failure] = read_bytes(tmp_path, name, data)
    assert isinstance(failure, Failure)
    assert failure.reason == "not_text"
    assert kind in str(failure.detail)
    assert failure.lost_bytes == len(data)


@pytest.mark.parametrize("data", [NOISE, b"\xa7\r\r\n" + NOISE[:300]])
def test_bytes_that_are_no_text_in_any_encoding_are_a_reject(tmp_path: Path, data: bytes) -> None:
    assert reasons(read_bytes(tmp_path, "a.txt", data)) == ["not_text"]


@pytest.mark.parametrize(
    "text",
    ["a\0b", "PART of it", "RIFF and ID3 are words", "N\bNA\bA man page", "\x1b[31mred\x1b[0m " * 9, "PK and %PDF"],
)
def test_texts_that_resemble_binary_files_are_documents(tmp_path: Path, text: str) -> None:
    assert texts(read_bytes(tmp_path, "a.txt", text.encode())) == [text]
    assert not is_binary_text(text)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.txt", "a.warc", "a.jsonl.gz"])
def test_pointers_of_git_lfs_are_no_documents(tmp_path: Path, name: str) -> None:
    [failure] = read_bytes(tmp_path, name, POINTER)
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.lost_bytes) == ("git_lfs_pointer", len(POINTER))


def test_files_compressed_twice_are_read(tmp_path: Path) -> None:
    twice = gzip.compress(gzip.compress(LINES))
    assert texts(read_bytes(tmp_path, "a.jsonl.gz", twice)) == TEXTS
    inside = gzip.compress(gzip.compress(LINES)[:-20])
    *_, failure = read_bytes(tmp_path, "a.jsonl.gz", inside)
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.lost_bytes) == ("unreadable", len(inside))


def test_further_endings(tmp_path: Path) -> None:
    (tmp_path / "a.jsonlines").write_bytes(LINES)
    (tmp_path / "b.jsonl.gzip").write_bytes(gzip.compress(LINES))
    (tmp_path / "c.text").write_text("A text.")
    assert texts(read(tmp_path)) == [*TEXTS, *TEXTS, "A text."]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Größe und Maß\n".encode() + bytes(5_000), "Größe und Maß\n"),
        ("Größe".encode("utf-16-le") + bytes(9), "Größe"), ("Größe".encode("utf-32-le"), "Größe"),
        ("Größe".encode("utf-32-be"), "Größe"), ("Größe".encode()[:-2], "Grö\ufffd"), (b"caf\xe9", "café"),
        ("日本語".encode("iso2022_jp"), "日本語"), ("naïve 😀".encode("utf-16-be"), "naïve 😀"),
        (b"na\xc3\xafve \xed\xa0\xbd\xed\xb8\x80", "naïve 😀"),
        ("Über Flüsse, Mühlen, ".encode() + b"\xff" + "größer".encode(), "Über Flüsse, Mühlen, \ufffdgrößer"),
    ],
)  # fmt: skip
def test_encodings_without_a_mark(data: bytes, text: str) -> None:
    assert decode(data) == text
