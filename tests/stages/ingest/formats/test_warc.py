import bz2
import codecs
import gzip
import io
import random
import re
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard

from stages.ingest.extraction import extracted
from stages.ingest.formats import html, warc
from stages.ingest.records import Failure, Record
from tests.stages.ingest import sample_files
from tests.stages.ingest.formats.test_html_pages import PAGE
from tests.stages.ingest.sample_files import read_bytes


def record(kind: str, body: bytes, *, url: str = "https://example.org/", number: int = 1, extra: str = "") -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012d}>\r\n"
        f"WARC-Target-URI: {url}\r\nWARC-Date: 2020-05-06T07:08:09Z\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def response(
    page: bytes,
    *,
    status: str = "200 OK",
    kind: str = "text/html",
    more: str = "",
    eol: bytes = b"\r\n",
    **record_fields: Any,
) -> bytes:
    content_type = f"Content-Type: {kind}\r\n" if kind else ""
    http = f"HTTP/1.1 {status}\r\n{content_type}{more}\r\n".encode() + page
    data = record("response", http, extra="Content-Type: application/http; msgtype=response\r\n", **record_fields)
    if eol == b"\r\n":
        return data
    head, _, body = data.partition(b"\r\n\r\n")
    http_head, _, page = body.partition(b"\r\n\r\n")
    body = http_head.replace(b"\r\n", eol) + eol * 2 + page.removesuffix(b"\r\n\r\n")
    head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head.replace(b"\r\n", eol))
    return head + eol * 2 + body + eol * 2


def read(data: bytes, max_bytes: int = 1_000_000) -> list[Record | Failure]:
    return list(extracted(warc.read(io.BufferedReader(io.BytesIO(data)), max_bytes), 5.0))  # type: ignore[arg-type]


def chunked(data: bytes, size: int = 700) -> bytes:
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x;name=value\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nTrailer: x\r\n\r\n"


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


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


def test_a_file_that_breaks_off_keeps_what_came_before(tmp_path: Path) -> None:
    whole = b"".join(gzip.compress(record("conversion", f"Text {number}. ".encode() * 999)) for number in range(5))
    results = read_bytes(tmp_path, "a.warc.gz", whole[: len(whole) * 2 // 3])
    kept = [result for result in results if isinstance(result, Record)]
    assert 3 <= len(kept) <= 4
    assert [result.position for result in results] == list(range(len(results)))
    assert isinstance(results[-1], Failure)
    assert results[-1].lost_bytes == len(whole) * 2 // 3


CODINGS = {
    "gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress, "identity": bytes, "": bytes,
}  # fmt: skip
WHEEL = "wheel of the mill"


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("coding", [*CODINGS, "raw deflate", "gzip, br", "undone by the crawler"])
def test_codings_of_pages_are_undone(coding: str, is_chunked: bool) -> None:
    page = PAGE.encode()
    header = coding
    if coding == "raw deflate":
        page, header = raw_deflate(page), "deflate"
    elif coding == "gzip, br":
        page = brotli.compress(gzip.compress(page))
    elif coding == "undone by the crawler":
        header = "gzip"
    else:
        page = CODINGS[coding](page)
    more = f"Content-Encoding: {header}\r\n" if header else ""
    if is_chunked:
        page = chunked(page)
        more += "Transfer-Encoding: Chunked\r\n"
    if coding == "undone by the crawler":
        page = PAGE.encode()
    [result] = read(response(page, more=more))
    assert isinstance(result, Record)
    assert result.text == text_of_page()
    assert result.text.count(WHEEL) == 9


def text_of_page() -> str:
    result = html.read(PAGE)
    assert isinstance(result, Record)
    return result.text


@pytest.mark.parametrize(
    ("page", "more", "reason"),
    [
        (PAGE.encode(), "Content-Encoding: gzip\r\nContent-Encoding: br\r\n", None),
        (b"\x99" + PAGE.encode(), "Content-Encoding: sdch\r\n", "unknown_coding"),
        (gzip.compress(PAGE.encode(), mtime=0)[:-30], "Content-Encoding: gzip\r\n", "broken_coding"),
        (brotli.compress(PAGE.encode())[:-30], "Content-Encoding: br\r\n", "broken_coding"),
        (raw_deflate(PAGE.encode())[:-30], "Content-Encoding: deflate\r\n", "broken_coding"),
        (b"\xff\xfe\xff" * 30, "Content-Encoding: deflate\r\n", "broken_coding"),
        (chunked(PAGE.encode())[:-200], "Transfer-Encoding: chunked\r\n", "broken_coding"),
        (gzip.compress(bytes(50_000_000)), "Content-Encoding: gzip\r\n", "too_long"),
        (brotli.compress(bytes(50_000_000)), "Content-Encoding: br\r\n", "too_long"),
        (zlib.compress(bytes(50_000_000)), "Content-Encoding: deflate\r\n", "too_long"),
    ],
)
def test_codings_that_cannot_be_undone_are_failures_of_their_page(page: bytes, more: str, reason: str | None) -> None:
    tracemalloc.start()
    first, second = read(response(page, more=more) + response(PAGE.encode()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (first.reason if isinstance(first, Failure) else None) == reason
    assert isinstance(second, Record)
    assert peak < 20e6


def test_a_page_that_the_crawler_cut_on_purpose_keeps_what_is_there() -> None:
    page = response(chunked(PAGE.encode())[:-200], more="Transfer-Encoding: chunked\r\n")
    [result] = read(page.replace(b"WARC-Date", b"WARC-Truncated: length\r\nWARC-Date"))
    assert isinstance(result, Record)
    assert WHEEL in result.text


ODD_CHARSETS = (
    "undefined", "punycode", "idna", "unicode_escape", "raw_unicode_escape", "base64", "rot13", "hex", "zlib", "bz2",
    "utf-7", "mbcs", "cp037", "no-such", "utf-8-sig", "UTF8", "'utf-8'", "x" * 300, "\u00e9", "utf-8;q=1",
)  # fmt: skip


@pytest.mark.parametrize("charset", ODD_CHARSETS)
def test_an_odd_charset_costs_no_page(charset: str) -> None:
    pages = [PAGE.replace("The 1th", "Das große").replace("utf-8", label) for label in ("utf-8", charset)]
    results = read(b"".join(response(page.encode(), kind=f"text/html; charset={charset}") for page in pages))
    assert ["Das große" in result.text for result in results if isinstance(result, Record)] == [True, True]


@pytest.mark.parametrize(
    ("charset", "stored"), [("gb2312", "gb18030"), ("latin1", "cp1252"), ("shift_jis", "cp932"), ("us-ascii", "cp1252")]
)
def test_labels_mean_what_browsers_make_of_them(charset: str, stored: str) -> None:
    word = {"gb18030": "镕基", "cp1252": "“große” €", "cp932": "①高﨑"}[stored]
    page = PAGE.replace("The 1th", word).replace('<meta charset="utf-8">', "")
    [result] = read(response(page.encode(stored), kind=f"text/html; charset={charset}"))
    assert isinstance(result, Record)
    assert word in result.text


def test_a_mark_of_utf_8_or_utf_16_wins_over_the_label() -> None:
    pages = [codecs.BOM_UTF8 + PAGE.encode(), PAGE.encode("utf-16")]
    results = read(b"".join(response(page, kind="text/html; charset=iso-8859-5") for page in pages))
    assert [result.text for result in results if isinstance(result, Record)] == [text_of_page()] * 2


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.ZstdCompressor().compress, bz2.compress])
def test_line_ends_and_compressions(eol: bytes, compress: Any) -> None:
    results = read(b"".join(compress(response(PAGE.encode(), number=number, eol=eol)) for number in range(3)))
    assert [result.text for result in results if isinstance(result, Record)] == [text_of_page()] * 3


def lengthened(data: bytes, by: int) -> bytes:
    return re.sub(rb"(Content-Length: )(\d+)", lambda match: match[1] + b"%d" % (int(match[2]) + by), data, count=1)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0x55 for byte in data[middle : middle + 20]) + data[middle + 20 :]


BROKEN = {
    "no length": lambda page: page.replace(b"Content-Length", b"Content-Width"),
    "negative length": lambda page: re.sub(rb"Content-Length: ", b"Content-Length: -", page),
    "huge length": lambda page: lengthened(page, 10**9),
    "length of digits": lambda page: re.sub(rb"Content-Length: ", b"Content-Length: " + b"9" * 6000, page),
    "too long": lambda page: lengthened(page, 100),
    "too short": lambda page: lengthened(page, -100),
    "garbage before": lambda page: b"garbage\r\nand more\r\n" + page,
    "cut": lambda page: page[: len(page) // 2] + b"\r\n",
    "no header end": lambda page: b"WARC/1.0\r\nWARC-Type: response\r\n",
    "no status": lambda page: page.replace(b"HTTP/1.1 200 OK", b"220 ftp is ready"),
}


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_record_is_a_failure_and_the_next_ones_are_read(kind: str, compress: Any) -> None:
    pages = [response(PAGE.encode(), url=f"https://example.org/{number}") for number in range(4)]
    pages[1] = BROKEN[kind](pages[1])
    results = read(b"".join(map(compress, pages)))
    assert [result.position for result in results] == list(range(len(results)))
    urls = [result.url for result in results if isinstance(result, Record)]
    expected = ["https://example.org/0", "https://example.org/2", "https://example.org/3"]
    assert [url for url in urls if url != "https://example.org/1"] == expected
    failures = [result for result in results if isinstance(result, Failure)]
    assert len(failures) == 1
    assert failures[0].reason in ("unreadable_record", "unreadable_http", "too_long", "unreadable_from_here")


def test_a_damaged_member_costs_that_member_wherever_it_is_damaged() -> None:
    random_bytes = random.Random(3)
    words = [" ".join(f"{random_bytes.random()}" for _ in range(300)) for _ in range(6)]
    members = [gzip.compress(record("conversion", text.encode())) for text in words]
    for at in range(0, len(members[2]), 61):
        broken = bytearray(members[2])
        broken[at : at + 8] = b"\x55" * 8
        results = read(b"".join([*members[:2], bytes(broken), *members[3:]]))
        kept = [result.text for result in results if isinstance(result, Record)]
        assert [text for text in words if text in kept] == [*words[:2], *words[3:]]
        [failure] = [result for result in results if isinstance(result, Failure)]
        assert 0 < failure.lost_bytes <= len(members[2])


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_long_page_is_a_failure_and_never_in_memory(compress: Any) -> None:
    data = compress(response(bytes(60_000_000), url="https://example.org/long")) + compress(response(PAGE.encode()))
    tracemalloc.start()
    first, second = read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(first, Failure)
    assert isinstance(second, Record)
    assert first.reason == "too_long"
    assert peak < 15e6


def test_a_page_without_a_content_type_is_known_by_its_beginning() -> None:
    results = read(response(PAGE.encode(), kind="") + response(b"plain text", kind=""))
    assert [type(result) for result in results] == [Record]


def test_odd_inputs(shared_data: Path) -> None:
    records = sample_files.read(shared_data / "odd_inputs" / "warc" / "crawl.warc.gz")
    assert len(records) == 4
    assert all(isinstance(record, Record) for record in records)
    assert all(record.text.count("every morning of the year") == 9 for record in records if isinstance(record, Record))


def test_the_parts_of_a_segmented_record_are_no_page() -> None:
    first = response(PAGE.encode()[:400]).replace(b"WARC-Date", b"WARC-Segment-Number: 1\r\nWARC-Date")
    rest = record("continuation", PAGE.encode()[400:], extra="WARC-Segment-Number: 2\r\n")
    results = read(first + rest + response(PAGE.encode()))
    assert [getattr(result, "reason", None) for result in results] == ["segmented", None]


@pytest.mark.parametrize(
    "more", ["Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked"]
)
def test_codings_may_stand_in_several_headers(more: str) -> None:
    data = gzip.compress(PAGE.encode())
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
    [result] = read(response(body, more=more + "\r\n"))
    assert isinstance(result, Record)


def test_secrets_of_addresses_are_in_no_reject_and_dates_are_iso_8601() -> None:
    url = "https://ann:pass@example.org:8080/a?token=secret#part"
    [failure, page] = read(
        response(b"\x1f\x8b", more="Content-Encoding: gzip\r\n", url=url)
        + response(PAGE.encode()).replace(b"2020-05-06T07:08:09Z", b"20200506070809")
    )
    assert isinstance(failure, Failure)
    assert "of https://example.org:8080/a" in str(failure.detail)
    assert not {"pass", "secret"} & set(str(failure.detail).replace("=", " ").replace(":", " ").split())
    assert isinstance(page, Record)
    assert page.date != "2020050607"


def test_what_is_passed_over_is_counted_by_kind() -> None:
    http = b"HTTP/1.1 200 OK\r\n"
    data = b"".join([
        record("warcinfo", b"x"), record("request", b"GET / HTTP/1.1\r\n\r\n"), record("request", b"x"),
        record("metadata", b"x"), record("revisit", http), record("strange", b"x"), response(PAGE.encode()),
        response(b"GIF", kind="image/gif"), response(b"{}", kind="application/json"), response(b"x", kind="../x"),
        response(b"not a page", kind=""), response(b"gone", status="404 Not Found"),
        record("response", b"20200506 example.org", url="dns:example.org", extra="Content-Type: text/dns\r\n"),
    ])  # fmt: skip
    passed_over: Counter[str] = Counter()
    stream = io.BufferedReader(io.BytesIO(data))  # type: ignore[arg-type]
    [page] = extracted(warc.read(stream, 1_000_000, passed_over), 5.0)
    assert isinstance(page, Record)
    assert page.position == 0
    assert passed_over == {
        "warcinfo_records": 1, "request_records": 2, "metadata_records": 1, "revisit_records": 1, "other_records": 1,
        "image_responses": 1, "application_responses": 1, "other_responses": 2, "responses_other_than_200": 1,
        "responses_of_other_protocols": 1,
    }  # fmt: skip
