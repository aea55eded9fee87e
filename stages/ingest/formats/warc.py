"""Crawls in Common Crawl's formats: WARC (pages as sent by the servers) and WET (their text).

- `read`: pages or texts of a file (ISO 28500:2017)
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from data_schemas.public_urls import public_url
from stages.ingest.formats.http_responses import PayloadError, decoded_payload, decoded_text, parse_response
from stages.ingest.formats.warc_records import DamagedRecord, WarcFile, WarcRecord
from stages.ingest.record_fields import iso_date
from stages.ingest.records import Failure, Markup, Record, unix_line_ends
from stages.ingest.streams.bookmarks import Bookmarks

_WANTED = frozenset(("response", "conversion"))
_PAGES = ("text/html", "application/xhtml+xml")
_MEDIA = frozenset(("application", "audio", "font", "image", "message", "model", "multipart", "text", "video"))
"""Top-level media types (RFC 6838), by which responses without a page are counted."""
_PAGE_BEGIN = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html)\b", re.I | re.S)


def read(
    stream: IO[bytes], max_bytes: int, passed_over: Counter[str] | None = None, bookmarks: Bookmarks | None = None
) -> Iterator[Record | Failure | Markup]:
    """Records in file order; a damaged one is a failure, and what follows it is read.

    Responses with a page yield its HTML, `conversion` records (WET) their own text; requests, metadata, images
    and responses other than 200 are passed over.

    Args:
        stream: the raw file; its compression is detected by the magic bytes.
        max_bytes: longer pages and texts are failures, and are not expanded further.
        passed_over: counts the records without a page or text, by kind.
        bookmarks: where to begin; receives those of this file.

    Raises:
        DamagedFileError: at the damage of a compressed file after which no record can be read.
    """
    passed_over = Counter() if passed_over is None else passed_over
    bookmarks = bookmarks or Bookmarks()
    position = bookmarks.start.position if bookmarks.start else 0
    file = WarcFile(stream, bookmarks.start)
    for record in file.records(max_bytes, _WANTED, passed_over):
        result = _failure(record) if isinstance(record, DamagedRecord) else _read_record(record, max_bytes, passed_over)
        if isinstance(result, Markup):
            yield replace(result, record=replace(result.record, position=position))
        elif result is not None:
            yield replace(result, position=position)
        position += result is not None
        if bookmarks.is_due(file.offset):
            bookmarks.add(file.bookmark(position))


def _failure(damage: DamagedRecord) -> Failure:
    address = f" of {public_url(damage.url)}" if damage.url else ""
    return Failure(0, damage.reason, f"{damage.detail}{address}", lost_bytes=damage.lost_bytes)


def _read_record(record: WarcRecord, max_bytes: int, passed_over: Counter[str]) -> Record | Failure | Markup | None:
    date = iso_date(record.headers.get("warc-date", ""))
    url = record.headers.get("warc-target-uri", "").strip("<>") or None
    name = public_url(url) if url else None
    if record.headers.get("warc-segment-number"):
        return Failure(0, "segmented", f"the first part of a record that other records continue, of {name}")
    document = Record(0, "", id=record.headers.get("warc-record-id"), url=url)
    if record.headers["warc-type"].lower() == "conversion":
        text = unix_line_ends(record.body.decode("utf-8", "replace"))
        return replace(document, text=text, date=date) if text.strip() else Failure(0, "empty_text", name)
    try:
        page = _page(record, max_bytes, passed_over)
    except PayloadError as error:
        return Failure(0, error.reason, f"{error.detail} of {name}")
    return None if page is None else Markup(document, page, "html", name=name, fallback_date=date)


def _page(record: WarcRecord, max_bytes: int, passed_over: Counter[str]) -> str | bytes | None:
    """HTML of a page; None for other content, which is counted.

    Raises:
        PayloadError: if the response cannot be read.
    """
    if not record.headers.get("content-type", "application/http").lower().startswith("application/http"):
        passed_over["responses_of_other_protocols"] += 1
        return None
    response = parse_response(record.body)
    if response is None:
        raise PayloadError("unreadable_http", "no status line in the response")
    content_type = response.headers.get("content-type", "")
    kind = content_type.split(";")[0].strip().lower()
    if response.status != 200:
        passed_over["responses_other_than_200"] += 1
        return None
    page = (
        decoded_payload(response, max_bytes, is_truncated="warc-truncated" in record.headers) if _may_be(kind) else b""
    )
    if kind in _PAGES or (not kind and _PAGE_BEGIN.match(page[:2000])):
        return decoded_text(page, content_type)
    major = kind.partition("/")[0]
    passed_over[f"{major if major in _MEDIA else 'other'}_responses"] += 1
    return None


def _may_be(kind: str) -> bool:
    """Whether a response of this media type may be a page; servers may send none."""
    return kind in (*_PAGES, "")
