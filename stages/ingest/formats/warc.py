"""Crawls in Common Crawl's formats: WARC (pages as sent by the servers) and WET (their text).

- `read`: pages or texts of a file (ISO 28500:2017)
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
    """Records in file order; the records before damage or truncation are kept.

    Responses with a page yield its main text, `conversion` records (WET) their own text; requests, metadata, images
    and responses other than 200 are skipped.

    Args:
        stream: the raw file; gzip and zstd have a member per record and are detected by their magic bytes.
    """
    position = -1
    types = WarcRecordType.response | WarcRecordType.conversion
    try:
        for record in ArchiveIterator(stream, record_types=types, parse_http=True, strict_mode=False):
            result = _read_record(record)
            if result is not None:
                position += 1
                yield replace(result, position=position)
    except Exception as error:  # any exception of decompression, parser or stream
        yield Failure(position + 1, "unreadable_from_here", f"{type(error).__name__}: {error}"[:200])


def _read_record(record: Any) -> Record | Failure | None:
    url = record.headers.get("WARC-Target-URI", "").strip("<>") or None
    result: Record | Failure
    if record.record_type == WarcRecordType.conversion:
        text = record.reader.read().decode("utf-8", "replace")
        result = Record(0, text, url=url) if text.strip() else Failure(0, "empty_text")
    elif _is_page(record):
        result = html.read(_decoded(record.reader.read(), record.http_headers.get("Content-Type", "")), url)
    else:
        return None
    if isinstance(result, Failure):
        return replace(result, detail=result.detail or url)
    date = result.date or record.headers.get("WARC-Date", "")[:10] or None
    return replace(result, id=record.record_id, date=date)


def _is_page(record: Any) -> bool:
    if not record.is_http or record.http_headers is None or record.http_headers.status_code != 200:
        return False
    return (record.http_content_type or "").lower() in _PAGES


def _decoded(page: bytes, content_type: str) -> bytes | str:
    """Decoded by the charset in the Content-Type if that is valid; otherwise the bytes, for detection from the page."""
    declared = _CHARSET.search(content_type)
    try:
        return page.decode(declared[1]) if declared else page
    except (LookupError, UnicodeDecodeError):
        return page
