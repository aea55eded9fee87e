"""CSV and TSV: a record per row, parsed by Python's csv module.

The csv module has a field size limit for the whole process; it is set for each row and restored after it.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from stages.ingest.byte_streams import as_utf8, capped_lines
from stages.ingest.config import SourceConfig
from stages.ingest.record_fields import record_of
from stages.ingest.records import Failure, Record


def read_csv(stream: IO[bytes], source: SourceConfig, max_bytes: int) -> Iterator[Record | Failure | None]:
    """Comma-separated with quoted fields (RFC 4180) by default."""
    yield from _read(stream, source, max_bytes, source.delimiter or ",", source.quoting is not False)


def read_tsv(stream: IO[bytes], source: SourceConfig, max_bytes: int) -> Iterator[Record | Failure | None]:
    """Tab-separated with quotes as text (IANA text/tab-separated-values) by default."""
    yield from _read(stream, source, max_bytes, source.delimiter or "\t", source.quoting is True)


def _read(
    stream: IO[bytes], source: SourceConfig, max_bytes: int, delimiter: str, quoting: bool
) -> Iterator[Record | Failure | None]:
    lines = _Lines(as_utf8(stream), max_bytes)
    rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE)
    header: list[str] | None = None
    width, position = 0, 0
    for row in _rows(rows, lines, max_bytes):
        if row == []:
            continue
        if isinstance(row, list) and not width:
            width = len(row)
            if source.header:
                header = row
                continue
        yield _from_row(row, header, width, position, source)
        position += 1


@dataclass
class _Broken:
    reason: str
    detail: str


class _Lines:
    """Lines for the csv module; a line that is too long becomes an empty one and sets `has_too_long`."""

    def __init__(self, stream: IO[bytes], max_bytes: int) -> None:
        self._lines = capped_lines(stream, max_bytes)
        self.has_too_long = False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        _, line = next(self._lines)
        self.has_too_long |= line is None
        return (line or b"").decode("utf-8", "surrogateescape")


def _rows(rows: Any, lines: _Lines, max_bytes: int) -> Iterator[Sequence[str] | _Broken]:
    while True:
        previous_limit = csv.field_size_limit(max_bytes)  # a limit for the whole process
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            row = _Broken("not_csv", str(error))
        finally:
            csv.field_size_limit(previous_limit)
        if lines.has_too_long and not isinstance(row, _Broken):
            lines.has_too_long = False
            yield _Broken("too_long", "a line longer than max_document_bytes")
        else:
            yield row


def _from_row(
    row: Sequence[str] | _Broken, header: Sequence[str] | None, width: int, position: int, source: SourceConfig
) -> Record | Failure | None:
    if isinstance(row, _Broken):
        return Failure(position, row.reason, row.detail)
    if len(row) != width:
        return Failure(position, "wrong_field_count", f"{len(row)} fields, {width} in the first row")
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return Failure(position, "not_utf8", "bytes that are not UTF-8")
    values: dict[Any, str] = dict(enumerate(row))
    values.update(zip(header or (), row, strict=False))
    return record_of(values, position, source)
