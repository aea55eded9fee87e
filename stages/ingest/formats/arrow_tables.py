"""Parquet, and Arrow IPC files and streams: a record per row, read in batches."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.ingest.config import SourceConfig
from stages.ingest.record_fields import record_of, top_level_columns
from stages.ingest.records import Failure, Record

MAX_ROWS = 1_000
BATCH_BYTES = 16_000_000
ARROW_FILE_MAGIC = b"ARROW1"


def read_parquet(stream: IO[bytes], source: SourceConfig) -> Iterator[Record | Failure | None]:
    """Rows of a Parquet file; only the configured columns are read."""
    with _seekable(stream) as file:
        parquet = pq.ParquetFile(file)
        columns = top_level_columns(parquet.schema_arrow.names, source)
        position = 0
        for group in range(parquet.num_row_groups):
            for batch in parquet.iter_batches(_rows_at_once(parquet.metadata.row_group(group)), [group], columns):
                yield from _records(batch, position, source)
                position += len(batch)


def read_arrow(stream: IO[bytes], source: SourceConfig) -> Iterator[Record | Failure | None]:
    """Rows of an Arrow IPC file (Feather 2) or stream, distinguished by the magic bytes."""
    position = 0
    if stream.peek(6)[:6] == ARROW_FILE_MAGIC:  # type: ignore[attr-defined]
        with _seekable(stream) as file:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                position = yield from _of_batch(reader.get_batch(number), position, source)
        return
    for batch in pa.ipc.open_stream(stream):
        position = yield from _of_batch(batch, position, source)


def _of_batch(batch: pa.RecordBatch, position: int, source: SourceConfig) -> Any:
    selected = batch.select(top_level_columns(batch.schema.names, source))
    for start in range(0, len(batch), MAX_ROWS):
        yield from _records(selected.slice(start, MAX_ROWS), position + start, source)
    return position + len(batch)


def _records(batch: pa.RecordBatch, first: int, source: SourceConfig) -> Iterator[Record | Failure | None]:
    rows = _checked_rows(batch)
    if rows is None:  # At least one row is damaged: check each.
        rows = [row for index in range(len(batch)) for row in _checked_rows(batch.slice(index, 1)) or [None]]
    for position, row in enumerate(rows, first):
        if row is None:
            yield Failure(position, "damaged_row", "bytes that are not UTF-8, or a value out of range")
        else:
            yield record_of(row, position, source)


def _checked_rows(batch: pa.RecordBatch) -> list[Any] | None:
    """Rows as dictionaries; None if any is invalid, as Arrow does not check offsets and UTF-8 when reading."""
    if not batch.num_columns:
        return [{}] * len(batch)
    try:
        batch.validate(full=True)
        return list(batch.to_pylist())
    except (pa.ArrowException, ValueError, OverflowError):
        return None


def _rows_at_once(group: Any) -> int:
    """Number of rows that have about `BATCH_BYTES` over all columns."""
    return max(1, min(MAX_ROWS, BATCH_BYTES * int(group.num_rows) // max(int(group.total_byte_size), 1)))


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
