"""Crawls as Common Crawl writes them: WARC (pages as the servers gave them) and WET (their text).

- `read`: the pages or texts of one file (ISO 28500:2017)
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

from fastwarc.warc import ArchiveIterator, WarcRecordType

from stages.ingest.formats import html
from stages.ingest.records import Failure, Record

_CHARSET = re.compile(r"charset=[\"']?([\w.:-]+)", re.IGNORECASE)
_PAGES = ("text/html", "application/xhtml+xml")


def read(stream: IO[bytes]) -> Iterator[Record | Failure]:
    """Records in the file's order; a file that breaks off keeps what came before.

    Responses with a page give its main text, `conversion` records (WET) their own text; requests, metadata, images
    and answers other than 200 are passed over.

    Args:
        stream: the raw file: gzip and zstd members are one per record, and are recognized by their first bytes.
    """
    position = -1
    wanted = WarcRecordType.response | WarcRecordType.conversion
    try:
        for record in ArchiveIterator(stream, record_types=wanted, parse_http=True, strict_mode=False):
            found = _read_record(record)
            if found is not None:
                position += 1
                yield replace(found, position=position)
    except Exception as error:  # the library raises what its compression, its parser or the stream raise
        yield Failure(position + 1, "unreadable_from_here", f"{type(error).__name__}: {error}"[:200])


def _read_record(record: Any) -> Record | Failure | None:
    url = record.headers.get("WARC-Target-URI", "").strip("<>") or None
    found: Record | Failure
    if record.record_type == WarcRecordType.conversion:
        text = record.reader.read().decode("utf-8", "replace")
        found = Record(0, text, url=url) if text.strip() else Failure(0, "empty_text")
    elif _is_page(record):
        found = html.read(_decoded(record.reader.read(), record.http_headers.get("Content-Type", "")), url)
    else:
        return None
    if isinstance(found, Failure):
        return replace(found, detail=found.detail or url)
    date = found.date or record.headers.get("WARC-Date", "")[:10] or None
    return replace(found, id=record.record_id, date=date)


def _is_page(record: Any) -> bool:
    if not record.is_http or record.http_headers is None or record.http_headers.status_code != 200:
        return False
    return (record.http_content_type or "").lower() in _PAGES


def _decoded(page: bytes, content_type: str) -> bytes | str:
    """By the server's word where it gives one that is known and true; else the page's own is looked for."""
    declared = _CHARSET.search(content_type)
    try:
        return page.decode(declared[1]) if declared else page
    except (LookupError, UnicodeDecodeError):
        return page
