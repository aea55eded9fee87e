"""Reads files of all formats into records; a record that cannot be read becomes a `Failure`, never an exception.

Readers are imported when the first file of their format is read: a run over JSON lines loads no HTML parser.

- `read_file`: the records of a file, in its order
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from data_schemas.public_urls import public_url
from stages.ingest.binary_content import HEAD_BYTES, binary_kind, is_binary_text, is_pointer
from stages.ingest.config import FormatName, SourceConfig, TextFormatName
from stages.ingest.extraction import extracted
from stages.ingest.file_formats import ONE_TEXT, compression_of, format_of
from stages.ingest.file_listing import SourceFile, check_unchanged
from stages.ingest.records import Failure, Markup, Record
from stages.ingest.streams.bookmarks import Bookmarks
from stages.ingest.streams.byte_streams import BROKEN_STREAM, ByteCounter, open_source
from stages.ingest.streams.decompression import DamagedFileError
from stages.ingest.streams.expanded_files import decompressed

WHOLE_FILE = ("unreadable_from_here", "not_a_dump", "not_text", "git_lfs_pointer")
"""Reasons of failures with which a file ends; all of it counts as lost."""
BINARY = ("parquet", "arrow", "warc")
"""Formats that are no text."""
WITH_MARKUP = ("warc", "wikipedia_dump")
"""Formats whose readers know the markup of their texts."""


def read_file(
    file: SourceFile,
    source: SourceConfig,
    max_document_bytes: int,
    counter: ByteCounter,
    seconds: float = 5.0,
    bookmarks: Bookmarks | None = None,
) -> Iterator[Record | Failure]:
    """Records in file order; a damaged file ends with a failure at the position from which it cannot be read.

    Args:
        file: from `list_files`.
        source: source that the file belongs to.
        max_document_bytes: longer lines and texts are failures, and are not loaded into memory.
        counter: counts the bytes read, except for Parquet and Arrow, which are read far ahead of their records; and the
            records that are passed over.
        seconds: CPU time for the markup of a document.
        bookmarks: where to begin; receives those of this file.

    Raises:
        InputDataError: if the file no longer exists, or changed after it was listed.
        ReadInterruptedError: if its filesystem fails.
    """
    format_name = source.format or file.format or format_of(file.path, source)
    assert format_name, f"{file.path} was listed without a format"
    bookmarks = bookmarks or Bookmarks()
    position = bookmarks.first or (file.rows.position if file.rows else 0)
    size = file.rows.bytes if file.rows else file.bytes
    try:
        with open_source(file.url, ByteCounter() if format_name in ("parquet", "arrow") else counter) as raw:
            stream = raw if format_name == "warc" else decompressed(raw, compression_of(file.path))
            problem = _problem(raw, stream, format_name)
            items = _items(stream, format_name, file, source, max_document_bytes, counter.passed_over, bookmarks)
            items = iter((problem,)) if problem else items
            if bookmarks.first:
                items = (item for item in items if _position(item) >= bookmarks.first)
            for record in extracted(items, seconds):
                if isinstance(record, Failure) and record.reason in WHOLE_FILE:
                    yield replace(record, lost_bytes=max(size, 1))
                else:
                    yield record
                position = record.position + 1
                bookmarks.before(position)  # earlier ones are needed no more
    except BROKEN_STREAM as error:
        yield _unreadable(position, error, size)
    check_unchanged(file)


def _unreadable(position: int, error: Exception, file_bytes: int) -> Failure:
    """The rest of a file; all of it counts as lost if it ends early, or if the offset of the damage is unknown."""
    known = isinstance(error, DamagedFileError) and not error.ends_early
    lost = file_bytes - error.offset if known else file_bytes  # type: ignore[attr-defined]
    message = str(error) if isinstance(error, DamagedFileError) else f"{type(error).__name__}: {error}"
    return Failure(position, "unreadable", f"from here on: {message}", lost_bytes=max(lost, 1))


def _problem(raw: IO[bytes], stream: IO[bytes], format_name: FormatName) -> Failure | None:
    """Failure of a file that is not what its name says."""
    if is_pointer(raw.peek(HEAD_BYTES)[:HEAD_BYTES]):  # type: ignore[attr-defined]
        detail = "only its pointer is here, the file is in Git LFS; fetch it with: git lfs pull"
        return Failure(0, "git_lfs_pointer", detail)
    if format_name in BINARY:
        return None
    kind = binary_kind(stream.peek(HEAD_BYTES)[:HEAD_BYTES])  # type: ignore[attr-defined]
    return Failure(0, "not_text", f"the content is not {format_name} but {kind}") if kind else None


def _position(item: Record | Failure | Markup) -> int:
    return item.record.position if isinstance(item, Markup) else item.position


def _items(
    stream: IO[bytes],
    format_name: FormatName,
    file: SourceFile,
    source: SourceConfig,
    max_bytes: int,
    passed_over: Counter[str],
    bookmarks: Bookmarks,
) -> Iterator[Record | Failure | Markup]:
    if format_name in ONE_TEXT:
        yield _one_text(stream, source.text_format or format_name, file.url, max_bytes)
        return
    kind = source.text_format or "plain"
    for row in _rows(stream, format_name, file, source, max_bytes, passed_over, bookmarks):
        if row is None:
            passed_over["records_without_the_values_of_where"] += 1
            continue
        if not isinstance(row, Record) or format_name in WITH_MARKUP or kind == "plain":
            yield row
        elif len(row.text) > max_bytes:
            yield Failure(row.position, "too_long")
        else:
            yield Markup(replace(row, text=""), row.text, kind)


def _rows(
    stream: IO[bytes],
    format_name: FormatName,
    file: SourceFile,
    source: SourceConfig,
    max_bytes: int,
    passed_over: Counter[str],
    bookmarks: Bookmarks,
) -> Iterator[Record | Failure | Markup | None]:
    if format_name in ("json_lines", "json"):
        from stages.ingest.formats import json_lines

        reader = json_lines.read if format_name == "json_lines" else json_lines.read_array_or_lines
        return reader(stream, source, max_bytes, bookmarks)
    if format_name in ("csv", "tsv"):
        from stages.ingest.formats import delimited

        return (delimited.read_csv if format_name == "csv" else delimited.read_tsv)(
            stream, source, max_bytes, bookmarks
        )
    if format_name in ("parquet", "arrow"):
        from stages.ingest.formats import arrow_tables

        if format_name == "parquet":
            return arrow_tables.read_parquet(stream, source, file.rows, bookmarks.first)
        return arrow_tables.read_arrow(stream, source, bookmarks.first)
    if format_name == "warc":
        from stages.ingest.formats import warc

        return warc.read(stream, max_bytes, passed_over, bookmarks)
    from stages.ingest.formats import wikipedia_dump

    return wikipedia_dump.read(stream, max_bytes, passed_over, bookmarks)


def _one_text(stream: IO[bytes], kind: TextFormatName, url: str, max_bytes: int) -> Record | Failure | Markup:
    data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        return Failure(0, "too_long", f"a file of more than {max_bytes:,} bytes")
    record = Record(0, "", url=public_url(url) if url.startswith(("http://", "https://")) else None)
    if kind == "html":  # the page itself may declare its encoding
        return Markup(record, data, kind)
    from stages.ingest.formats.plain_text import decode

    text = decode(data)
    if is_binary_text(text):
        return Failure(0, "not_text", "the content is binary, or in an unknown encoding")
    return replace(record, text=text) if kind == "plain" else Markup(record, text, kind)
