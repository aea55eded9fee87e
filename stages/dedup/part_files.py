"""Arrow files between the phases, of which a reader loads only the columns that it needs."""

from collections.abc import Sequence
from dataclasses import dataclass
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

    def reader(self, columns: Sequence[int] = ()) -> Any:
        """An open `pyarrow.ipc.RecordBatchFileReader`; memory-mapped on a local disk, where it copies nothing.

        Args:
            columns: indices of the columns to read; all by default.
        """
        options = pa.ipc.IpcReadOptions(included_fields=list(columns))
        if self.folder.is_local:
            return pa.ipc.open_file(pa.memory_map(str(self.folder.local_path(self.path))), options=options)
        return pa.ipc.open_file(self.folder.open(self.path), options=options)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Some columns, in the order of the file; the bytes of the others are not read."""
        schema = self.reader().schema
        return self.reader([schema.get_field_index(name) for name in names]).read_all()


def open_table(part: PartFile) -> pa.Table:
    """Table of a whole file: memory-mapped on a local disk, otherwise read."""
    return part.reader().read_all()


def part_of(result: PartitionResult, path: str) -> PartFile:
    """File that a partition wrote as `path`."""
    return PartFile(result.folder, result.location(path))


def column_of(batch: Any, name: str) -> npt.NDArray[Any]:
    """Numeric column as an array, without copying if it is a single chunk."""
    column = batch.column(name)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return np.asarray(column.to_numpy(zero_copy_only=False))


def numbers_of(table: Any, name: str) -> Numbers:
    """Column of document numbers, stored in 4 or 8 bytes, as int64."""
    return column_of(table, name).astype(np.int64)


def number_type(documents: int) -> pa.DataType:
    """Type of the numbers of this many documents: they are most of what is written between the phases."""
    return pa.uint32() if documents <= 1 << 32 else pa.int64()
