"""CSV and TSV: a record per row, parsed by Python's csv module.

- `read_csv`, `read_tsv`: the rows of a file
- `_RowParser`: rows of quoted fields, which rejects the line where a quote opens that does not close

The csv module has a field size limit for the whole process; it is set for each row and restored after it.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from stages.ingest.config import SourceConfig
from stages.ingest.formats.delimiters import file_dialect
from stages.ingest.record_fields import record_of, top_level_columns
from stages.ingest.records import Failure, Record
from stages.ingest.streams.bookmarks import Bookmark, Bookmarks
from stages.ingest.streams.byte_streams import as_utf8, capped_lines
from stages.ingest.streams.expanded_files import continued, member_at

MIN_SWALLOWED_DELIMITERS = 8
"""Delimiters in the lines of a well-formed field, all of which look like rows, from which they are rows: lines of a
poem may have a comma each, and the quotes of two damaged rows may enclose the rows between them."""
_STRAY_QUOTE = r'""|(?<!^)(?<!{0})"(?!{0}|[\r\n]*$)'
"""A pair of quotes, or one that neither begins nor ends a field with this delimiter."""
SAMPLED_LINES = 200
SCANS_PER_BYTE = 4
"""Bytes to parse again behind quotes that do not close, per byte of the file: the work stays linear."""


def read_csv(
    stream: IO[bytes], source: SourceConfig, max_bytes: int, bookmarks: Bookmarks | None = None
) -> Iterator[Record | Failure | None]:
    """Comma-separated with quoted fields (RFC 4180) by default."""
    yield from _read(stream, source, max_bytes, source.delimiter or ",", source.quoting is not False, bookmarks)


def read_tsv(
    stream: IO[bytes], source: SourceConfig, max_bytes: int, bookmarks: Bookmarks | None = None
) -> Iterator[Record | Failure | None]:
    """Tab-separated with quotes as text (IANA text/tab-separated-values) by default."""
    yield from _read(stream, source, max_bytes, source.delimiter or "\t", source.quoting is True, bookmarks)


def _read(
    stream: IO[bytes],
    source: SourceConfig,
    max_bytes: int,
    delimiter: str,
    quoting: bool,
    bookmarks: Bookmarks | None,
) -> Iterator[Record | Failure | None]:
    bookmarks = bookmarks or Bookmarks()
    stream = as_utf8(stream)
    dialect = file_dialect(stream, source, delimiter, quoting)
    lines = _Lines(stream, max_bytes)
    rows = _RowParser(lines, dialect, max_bytes)
    header: list[str] | None = None
    position = 0
    for row in rows:
        if row == []:
            continue
        if isinstance(row, list) and not rows.width:
            rows.width = len(row)
            if start := bookmarks.start:
                position = start.position
                first_line, rows.credit = start.state
                lines.jump(continued(lines.stream, start), first_line)
            if source.header:
                header = row
            if source.header or start:
                continue
        yield _from_row(row, header, rows.width, position, source)
        position += 1
        if bookmarks.is_due(lines.offset) and lines.is_between_rows():
            member = member_at(lines.stream, lines.offset)
            bookmarks.add(Bookmark(position, lines.offset, member, (lines.number, rows.credit)))


@dataclass
class _Broken:
    reason: str
    detail: str


class _Lines:
    """Numbered lines for the csv module, with those of the current row, which can be read again.

    A line that is too long becomes an empty one and sets `has_too_long`.
    """

    def __init__(self, stream: IO[bytes], max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.jump(stream, 0)
        self._limit = 0
        self.row: list[tuple[int, bytes | None]] = []
        self.row_bytes = 0
        self.is_cut_off = False
        """Whether the row ended at the end of the file or at the limit of bytes."""

    def jump(self, stream: IO[bytes], number: int) -> None:
        """Read a stream, whose next line has this number."""
        self.stream = stream
        self.number = number
        self.offset = stream.tell()
        """Offset of the next line, unless lines were too long since `is_between_rows`."""
        self._lines = capped_lines(stream, self._max_bytes)
        self._again: deque[tuple[int, bytes | None]] = deque()

    def is_between_rows(self) -> bool:
        """Whether no line is to be read again, so that the rows that follow depend on `offset` and `number` alone."""
        self.offset = self.stream.tell()
        return not self._again

    def begin(self, limit: int) -> None:
        """Begin a row, of one line if `limit` bytes are exceeded."""
        self.row, self.row_bytes, self._limit, self.is_cut_off = [], 0, limit, False

    def reread(self, first: int = 0) -> None:
        """Read the lines of the row again, from its `first` line."""
        self._again.extendleft(reversed(self.row[first:]))

    def split_at_carriage_returns(self) -> None:
        """Read the lines of the row again, the last one in the lines that end with CR alone."""
        number, line = self.row[-1]
        parts = [(number, part) for part in re.findall(rb"[^\r]*\r\n?|[^\r]+", line or b"")]
        self._again.extendleft(reversed([*self.row[:-1], *parts]))

    def skip_field(self) -> None:
        """Skip the lines up to the quote that closes the field in which the row ended."""
        quotes = sum((line or b"").count(b'"') for _, line in self.row)
        while quotes % 2 and (following := self._again.popleft() if self._again else self._next_line()):
            quotes += (following[1] or b"").count(b'"')

    @property
    def has_too_long(self) -> bool:
        return any(line is None for _, line in self.row)

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        self.is_cut_off = True
        if self.row and self.row_bytes > self._limit:
            raise StopIteration
        line = self._again.popleft() if self._again else self._next_line()
        if line is None:
            raise StopIteration
        self.is_cut_off = False
        self.row.append(line)
        self.row_bytes += len(line[1] or b"")
        return _decoded(line[1])

    def _next_line(self) -> tuple[int, bytes | None] | None:
        """The next line of the file; None at its end."""
        following = next(self._lines, None)
        if following is None:
            return None
        self.number += 1
        self.offset += len(following[1] or b"")
        return self.number - 1, following[1]


class _RowParser:
    """Rows, with a `_Broken` for each that cannot be read.

    A quote that does not close would make one field of all rows behind it. Such a field reaches the end of the file or
    contains a quote that neither ends it nor is doubled, or its lines are rows by themselves: the line where it opens
    is rejected, and reading continues at the next line.
    """

    def __init__(self, lines: _Lines, dialect: Mapping[str, Any], max_bytes: int) -> None:
        self.width = 0
        """Number of fields of the first row; 0 before it was read."""
        self.credit = max_bytes
        """Bytes that may still be parsed again."""
        self._lines = lines
        self._dialect = dialect
        self._stray_quote = re.compile(_STRAY_QUOTE.format(re.escape(dialect["delimiter"])))
        self._max_bytes = max_bytes
        self._strict, self._lenient = (csv.reader(lines, **dialect, strict=is_strict) for is_strict in (True, False))

    def __iter__(self) -> "_RowParser":
        return self

    def __next__(self) -> Sequence[str] | _Broken:
        lines = self._lines
        lines.begin(limit := min(self._max_bytes, self.credit))
        row = self._next(self._strict)
        is_strict = not isinstance(row, csv.Error)
        if not is_strict and not lines.is_cut_off:  # a quote in the middle of a field, or one that closed another row's
            if str(row).startswith("new-line"):
                lines.split_at_carriage_returns()
                return next(self)
            row = self._repaired() or self._reread(limit)
        self.credit = min(self._max_bytes, self.credit + SCANS_PER_BYTE * len(lines.row[0][1] or b""))
        if lines.has_too_long and len(lines.row) == 1:
            return _Broken("too_long", "a line longer than max_document_bytes")
        if self._is_too_long(row):
            lines.skip_field()
            return _Broken("too_long", "a row longer than max_document_bytes")
        if (not is_strict and lines.is_cut_off) or self._is_several_rows(row, is_strict):
            return self._rejected_line()
        if isinstance(row, csv.Error):
            return _Broken("not_csv", str(row))
        return _Broken("too_long", "a line longer than max_document_bytes") if lines.has_too_long else row

    def _next(self, reader: Any) -> list[str] | csv.Error:
        previous_limit = csv.field_size_limit(self._max_bytes)  # a limit for the whole process
        try:
            row: list[str] = next(reader)
            return row
        except csv.Error as error:
            return error
        finally:
            csv.field_size_limit(previous_limit)

    def _reread(self, limit: int) -> list[str] | csv.Error:
        self._lines.reread()
        self._lines.begin(limit)
        return self._next(self._lenient)

    def _repaired(self) -> list[str] | None:
        """The line as a row, with quotes that are inside of quoted fields as characters; None if it is no such row."""
        [(_, line), *more] = self._lines.row
        if more:
            return None
        text = self._stray_quote.sub('""', _decoded(line))
        try:
            row = next(csv.reader([text], **self._dialect, strict=True), [])
        except csv.Error:
            return None
        return row if len(row) == self.width else None

    def _is_several_rows(self, row: list[str] | csv.Error, is_strict: bool) -> bool:
        """Whether the lines behind the first are rows by themselves."""
        behind = self._lines.row[1:]
        if not behind or self.width < 2:
            return False
        if is_strict and isinstance(row, list) and len(row) == self.width:
            are_numbered = row[0].isdecimal() and all(_decoded(line)[:1].isdecimal() for _, line in behind)
            enough = are_numbered or (self.width - 1) * len(behind) >= MIN_SWALLOWED_DELIMITERS
            return enough and all(map(self._is_row, behind))
        return 2 * sum(map(self._is_row, behind)) >= len(behind)

    def _is_too_long(self, row: list[str] | csv.Error) -> bool:
        """Whether the row has a field of more bytes than a document may have, whose lines are no rows by themselves."""
        is_long = self._lines.row_bytes > self._max_bytes or str(row).startswith("field larger")
        if not isinstance(row, csv.Error) or not is_long or self.width < 2:
            return False
        behind = self._lines.row[1 : 1 + SAMPLED_LINES]
        return bool(behind) and 2 * sum(map(self._is_row, behind)) < len(behind)

    def _is_row(self, line: tuple[int, bytes | None]) -> bool:
        return len(self._fields(line[1])) == self.width

    def _fields(self, line: bytes | None) -> list[str]:
        """Fields of a line by itself."""
        try:
            return next(csv.reader([_decoded(line).rstrip("\r\n")], **self._dialect), [])
        except csv.Error:
            return []

    def _rejected_line(self) -> Sequence[str] | _Broken:
        """The line where the quote opens; the header is read as far as its line goes, as other rows depend on it."""
        lines = self._lines
        (number, first), last = lines.row[0], lines.row[-1][0]
        lines.reread(1)
        self.credit = max(0, self.credit - lines.row_bytes)
        if not self.width:
            return self._fields(first)
        end = f"line {last + 1:,}, the last one that was searched" if lines.is_cut_off else f"line {last + 1:,}"
        return _Broken("unclosed_quote", f"the quote that opens in line {number + 1:,} does not close before {end}")


def _decoded(line: bytes | None) -> str:
    return (line or b"").decode("utf-8", "surrogateescape")


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
    repeated = []
    for name, value in zip(header or (), row, strict=False):
        if values.setdefault(name, value) != value:
            repeated.append(name)
        values.setdefault(name.strip(), value)
    if names := top_level_columns(repeated, source):
        return Failure(position, "repeated_field", f"column {names[0]!r} occurs twice, with different values")
    return record_of(values, position, source)
