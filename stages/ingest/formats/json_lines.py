"""JSON lines, or JSON values over several lines; read value by value, never the whole file."""

from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

from stages.ingest.config import SourceConfig
from stages.ingest.formats import json_documents
from stages.ingest.formats.json_values import DECODER, record, records_in
from stages.ingest.records import Failure, Record
from stages.ingest.streams.bookmarks import Bookmark, Bookmarks
from stages.ingest.streams.byte_streams import as_utf8, capped_lines
from stages.ingest.streams.expanded_files import continued, member_at

HEAD_BYTES = 1 << 16
SEPARATORS = " \t\r\n,\x1e\ufeff"
"""Characters between values: also the record separator of RFC 7464, and the byte order marks of joined files."""


def read(
    stream: IO[bytes], source: SourceConfig, max_bytes: int, bookmarks: Bookmarks | None = None
) -> Iterator[Record | Failure | None]:
    """A record per line, or several from a line with several objects; a damaged line does not affect the others.

    A file whose first value does not end in its first line is read by `json_documents`.
    """
    stream = as_utf8(stream)
    if json_documents.spans_lines(stream.peek(HEAD_BYTES)):  # type: ignore[attr-defined]
        yield from json_documents.read(stream, source, max_bytes)
    else:
        yield from _lines(stream, source, max_bytes, bookmarks or Bookmarks())


def read_array_or_lines(
    stream: IO[bytes], source: SourceConfig, max_bytes: int, bookmarks: Bookmarks | None = None
) -> Iterator[Record | Failure | None]:
    """Elements of the array if the file begins with `[`, else as `read`.

    Raises:
        ValueError: if the array is damaged, as the beginning of the next element is unknown.
    """
    stream = as_utf8(stream)
    if stream.peek(HEAD_BYTES).lstrip()[:1] == b"[":  # type: ignore[attr-defined]
        yield from json_documents.read(stream, source, max_bytes)
    else:
        yield from read(stream, source, max_bytes, bookmarks)


def _lines(
    stream: IO[bytes], source: SourceConfig, max_bytes: int, bookmarks: Bookmarks
) -> Iterator[Record | Failure | None]:
    stream = continued(stream, bookmarks.start)
    position = bookmarks.start.position if bookmarks.start else 0
    offset = stream.tell()
    for _, line in capped_lines(stream, max_bytes):
        first = position
        if line is None:
            yield Failure(position, "too_long", f"a line of more than {max_bytes:,} bytes")
        elif not line.isspace():
            for value in _values(line, source):
                is_failure = isinstance(value, Failure)
                yield replace(value, position=position) if is_failure else record(value, position, source)
                position += 1
        position = max(position, first + 1)  # an empty line has a position too
        offset += len(line or b"")
        if bookmarks.is_due(offset):
            offset = stream.tell()
            bookmarks.add(Bookmark(position, offset, member_at(stream, offset)))


def _values(line: bytes, source: SourceConfig) -> Iterator[Any]:
    """Values in a line that are records, then a failure if the line is damaged."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        yield Failure(0, "not_utf8", f"{error.reason} at byte {error.start} of the line")
        return
    end = len(text) - len(text.lstrip(SEPARATORS))
    while end < len(text):
        try:
            value, end = DECODER.raw_decode(text, end)
        except ValueError as error:
            yield Failure(0, "not_json", str(error))
            return
        except RecursionError:
            yield Failure(0, "not_json", "nested too deeply")
            return
        yield from records_in(value, source)
        while end < len(text) and text[end] in SEPARATORS:
            end += 1
