"""Arrow files between the phases, in several record batches, so that a reader loads only those that it needs."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from infra.store.filesystem import Folder
from infra.workers.partitions import PartitionResult

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PartFile:
    """Location of an Arrow file; picklable, so that any worker can read it."""

    folder: Folder
    path: str

    def reader(self) -> Any:
        """An open `pyarrow.ipc.RecordBatchFileReader`; memory-mapped on a local disk, where it copies nothing."""
        if self.folder.is_local:
            return pa.ipc.open_file(pa.memory_map(str(self.folder.local_path(self.path))))
        return pa.ipc.open_file(self.folder.open(self.path))


@lru_cache(maxsize=4)
def _remote_table(part: PartFile) -> pa.Table:
    return part.reader().read_all()


def open_table(part: PartFile) -> pa.Table:
    """Table of a whole file: memory-mapped on a local disk; otherwise read, and the last four are cached."""
    return part.reader().read_all() if part.folder.is_local else _remote_table(part)


def part_of(result: PartitionResult, path: str) -> PartFile:
    """File that a partition wrote as `path`."""
    entry = next(entry for entry in result.marker.files if entry.path == path)
    assert entry.part is not None
    return PartFile(result.folder, entry.part)


def file_bytes(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> bytes:
    """Arrow file of these record batches; empty batches keep their index."""
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, schema) as file:
        for batch in batches:
            file.write_batch(batch)
    return buffer.getvalue()


def column_of(batch: Any, name: str) -> npt.NDArray[Any]:
    """Numeric column as an array, without copying if it is a single chunk."""
    column = batch.column(name)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return np.asarray(column.to_numpy(zero_copy_only=False))


def ranges(total: int, max_size: int) -> Iterator[tuple[int, int]]:
    """Split [0, total) into the fewest equal ranges of at most `max_size`; an empty range if `total` is 0."""
    count = max(1, -(-total // max_size))
    for index in range(count):
        yield index * total // count, (index + 1) * total // count
