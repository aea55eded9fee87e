"""Parquet, and Arrow IPC files and streams: a record per row, read in batches.

pyarrow trusts the lengths and types that a file states, so a damaged file can request any amount of memory or raise any
exception. Reads allocate only what the file contains, and every exception is an error of the file.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.ingest.config import SourceConfig
from stages.ingest.file_listing import RowGroups
from stages.ingest.record_fields import SHOWN_FIELDS, record_of, top_level_columns
from stages.ingest.records import Failure, Record
from stages.ingest.streams.byte_streams import BROKEN_STREAM, ReadInterruptedError

MAX_ROWS = 1_000
BATCH_BYTES = 16_000_000
ARROW_FILE_MAGIC = b"ARROW1"
READ_BYTES = 1 << 24
"""Bytes to request at a time, so that a read allocates at most this much more than the file contains."""


def read_parquet(
    stream: IO[bytes], source: SourceConfig, rows: RowGroups | None = None, first: int = 0
) -> Iterator[Record | Failure | None]:
    """Rows of a Parquet file, or of some row groups, from row `first` on; only the configured columns are read."""
    with _seekable(stream) as file:
        parquet = pq.ParquetFile(_BoundedFile(file))
        groups = range(rows.first, rows.end) if rows else range(parquet.num_row_groups)
        position = rows.position if rows else 0
        yield from _records(_parquet_batches(parquet, groups, source), parquet.schema_arrow, source, position, first)


def read_arrow(stream: IO[bytes], source: SourceConfig, first: int = 0) -> Iterator[Record | Failure | None]:
    """Rows of an Arrow IPC file (Feather 2) or stream, distinguished by the magic bytes, from row `first` on."""
    if stream.peek(6)[:6] == ARROW_FILE_MAGIC:  # type: ignore[attr-defined]
        with _seekable(stream) as file:
            reader = pa.ipc.open_file(_BoundedFile(file))
            yield from _records(_file_batches(reader, source), reader.schema, source, first=first)
    else:
        stream_reader = pa.ipc.open_stream(_BoundedFile(stream))
        yield from _records(_stream_batches(stream_reader, source), stream_reader.schema, source, first=first)


def _parquet_batches(parquet: pq.ParquetFile, groups: Sequence[int], source: SourceConfig) -> Iterator[pa.RecordBatch]:
    names = parquet.schema_arrow.names
    columns = top_level_columns(names, source)
    for group in groups:
        rows = _rows_per_batch(parquet.metadata.row_group(group))
        # If no column is configured, the first one is read: the number of rows in the metadata may be damaged.
        for batch in parquet.iter_batches(rows, [group], columns or names[:1]):
            yield batch if columns else _selected(batch, [])


def _file_batches(reader: Any, source: SourceConfig) -> Iterator[pa.RecordBatch]:
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        yield _selected(batch, top_level_columns(batch.schema.names, source))


def _stream_batches(reader: Any, source: SourceConfig) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        yield _selected(batch, top_level_columns(batch.schema.names, source))


def _selected(batch: pa.RecordBatch, columns: list[str]) -> pa.RecordBatch:
    if len(batch) and not batch.num_columns:
        raise ValueError(f"{len(batch)} rows without any column")
    return batch.select(columns)


def _records(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, source: SourceConfig, position: int = 0, first: int = 0
) -> Iterator[Record | Failure | None]:
    """Records of the rows.

    Raises:
        ValueError: if two columns have a name that is configured.
    """
    repeated = [name for name, count in Counter(schema.names).items() if count > 1]
    if names := top_level_columns(repeated, source):
        raise ValueError(f"two columns have the name {names[0]!r}")
    columns = ", ".join(f"{column.name} ({column.type})" for column in list(schema)[:SHOWN_FIELDS])
    for batch in _slices(batches):
        if position + len(batch) <= first and not source.where:  # else rows that are passed over are counted
            position += len(batch)
            continue
        for row in _rows(batch):
            if row is None:
                yield Failure(position, "damaged_row", "bytes that are not UTF-8, or a value out of range")
            else:
                record = record_of(row, position, source)
                if isinstance(record, Failure) and record.reason == "no_text":
                    problem = (record.detail or "").split(";")[0]
                    record = replace(record, detail=f"{problem}; the columns are: {columns}")
                yield record
            position += 1


def _slices(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Slices of up to `MAX_ROWS`.

    Raises:
        ValueError: in place of exceptions of pyarrow that are not in `BROKEN_STREAM`.
    """
    try:
        for batch in batches:
            for start in range(0, len(batch), MAX_ROWS):
                yield batch.slice(start, MAX_ROWS)
    except (ReadInterruptedError, *BROKEN_STREAM):
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _rows(batch: pa.RecordBatch) -> list[Any]:
    """Rows as dictionaries, with None for each damaged one."""
    rows = _valid_rows(batch)
    if rows is None:  # At least one row is damaged: check each.
        rows = [row for index in range(len(batch)) for row in _valid_rows(batch.slice(index, 1)) or [None]]
    return rows


def _valid_rows(batch: pa.RecordBatch) -> list[Any] | None:
    """Rows as dictionaries; None if any is invalid, as Arrow does not check offsets and UTF-8 when reading."""
    if not batch.num_columns:
        return [{}] * len(batch)
    try:
        batch.validate(full=True)
        return list(batch.to_pylist())
    except Exception:  # of pyarrow, or of the libraries for decimals and time zones
        return None


def _rows_per_batch(group: Any) -> int:
    """Number of rows that have about `BATCH_BYTES` over all columns."""
    return max(1, min(MAX_ROWS, BATCH_BYTES * int(group.num_rows) // max(int(group.total_byte_size), 1)))


class _BoundedFile:
    """File object that allocates memory for the bytes that exist, not for those that a reader requests."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.closed = False

    def read(self, size: int) -> bytes | bytearray:
        if 0 <= size <= READ_BYTES:
            return self._file.read(size)
        data = bytearray()
        while chunk := self._file.read(READ_BYTES if size < 0 else min(READ_BYTES, size - len(data))):
            data += chunk
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self.closed = True


@contextmanager
def _seekable(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """The stream, or a copy on the local disk if it is not seekable (a web server without range requests)."""
    if stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(stream, file)
        file.seek(0)
        yield file
