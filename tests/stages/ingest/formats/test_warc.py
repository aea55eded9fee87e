import gzip
import io

import pytest

from stages.ingest.formats import warc
from stages.ingest.records import Failure, Record
from tests.stages.ingest.formats.test_html_pages import PAGE


def record(kind: str, body: bytes, *, url: str = "https://example.org/", number: int = 1, extra: str = "") -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012d}>\r\n"
        f"WARC-Target-URI: {url}\r\nWARC-Date: 2020-05-06T07:08:09Z\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def response(page: bytes, *, status: str = "200 OK", kind: str = "text/html", **more: object) -> bytes:
    http = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(page)}\r\n\r\n".encode() + page
    return record("response", http, extra="Content-Type: application/http; msgtype=response\r\n", **more)  # type: ignore[arg-type]


def read(data: bytes) -> list[Record | Failure]:
    return list(warc.read(io.BufferedReader(io.BytesIO(data))))  # type: ignore[arg-type]


def test_pages_are_read_and_everything_else_is_skipped() -> None:
    results = read(
        record("warcinfo", b"software: x")
        + record("request", b"GET / HTTP/1.1\r\n\r\n", extra="Content-Type: application/http; msgtype=request\r\n")
        + response(PAGE.encode(), number=7, url="https://example.org/mills")
        + response(b"gone", status="404 Not Found")
        + response(b"\x89PNG", kind="image/png")
        + response(b"<html><body></body></html>", url="https://example.org/empty")
    )
    first, empty = results
    assert isinstance(first, Record)
    assert "9" not in first.text
    assert first.text.count("wheel of the mill") == 9
    assert (first.url, first.position) == ("https://example.org/mills", 0)
    assert first.id == "<urn:uuid:00000000-0000-0000-0000-000000000007>"
    assert empty == Failure(1, "no_main_text", "https://example.org/empty")


@pytest.mark.parametrize("declared", ["text/html; charset=iso-8859-1", "text/html; charset=no-such", "text/html"])
def test_encodings(declared: str) -> None:
    page = PAGE.replace("The 1th", "Das große").replace("utf-8", "iso-8859-1").encode("latin-1")
    (results,) = read(response(page, kind=declared))
    assert isinstance(results, Record)
    assert "Das große" in results.text


def test_extracted_texts_of_a_wet_file() -> None:
    results = read(record("conversion", "Ein großer Text.".encode()) + record("conversion", b" "))
    assert results == [
        Record(0, "Ein großer Text.", id="<urn:uuid:00000000-0000-0000-0000-000000000001>",
               url="https://example.org/", date="2020-05-06"),
        Failure(1, "empty_text", "https://example.org/"),
    ]  # fmt: skip


def test_members_are_compressed_one_by_one() -> None:
    texts = [record("conversion", f"Text {number}.".encode()) for number in range(5)]
    results = read(b"".join(gzip.compress(result) for result in texts))
    assert [result.text for result in results if isinstance(result, Record)] == [
        f"Text {number}." for number in range(5)
    ]


def test_a_file_that_breaks_off_keeps_what_came_before() -> None:
    whole = b"".join(gzip.compress(record("conversion", f"Text {number}. ".encode() * 999)) for number in range(5))
    results = read(whole[: len(whole) * 2 // 3])
    kept = [result for result in results if isinstance(result, Record)]
    assert 3 <= len(kept) <= 4
    assert [result.position for result in results] == list(range(len(results)))
