"""Documents and rejects of a part of a partition, in tables of bounded size.

- `Piece`: the rows since the last one was written
"""

from typing import Any

import pyarrow as pa

from data_schemas.tables import DOCUMENTS, REJECTS
from infra.workers.partitions import PartitionWriter
from stages.common.funnel import Funnel
from stages.common.scripts import unspaced_bytes
from stages.ingest.partitioning import piece_name

ROW_BYTES = 200
"""Approximate size of a row's columns besides its text."""
SCHEMAS = {"documents": DOCUMENTS, "rejects": REJECTS}

Row = dict[str, Any]


class Piece:
    """Rows of the next piece of a partition."""

    def __init__(self, out: PartitionWriter, partition: str, max_bytes: int, number: int) -> None:
        """Begin a piece.

        Args:
            out: receives its tables.
            partition: name of the partition.
            max_bytes: maximum size of each table, of which a larger row is one by itself.
            number: index of the piece in the partition.
        """
        self.number = number
        self._out = out
        self._partition = partition
        self._max_bytes = max_bytes
        self._clear()

    def is_full(self, row: Row) -> bool:
        """Whether another row would make a table too large."""
        table = _table(row)
        return bool(self._rows[table]) and self._bytes[table] + _text_bytes(row) + ROW_BYTES > self._max_bytes

    def add(self, row: Row) -> None:
        """Add a row of the documents table, or of the rejects table (with a `reason`)."""
        size = _text_bytes(row)
        if "reason" in row:
            self._funnel.dropped(row, row["reason"], row["bytes"])
        else:
            self._funnel.kept(row, size, size)
            self._unspaced_bytes += unspaced_bytes(row["text"], size)
        self._rows[_table(row)].append(row)
        self._bytes[_table(row)] += size + ROW_BYTES

    def write(self) -> None:
        """Write the tables, and begin the next piece; the first piece has both, other pieces those with rows."""
        name = piece_name(self._partition, self.number)
        for table, rows in self._rows.items():
            if rows or not self.number:
                self._out.write_table(f"{table}/{name}.parquet", pa.Table.from_pylist(rows, SCHEMAS[table]))
        self._funnel.write(self._out, f"funnel/{name}.parquet")
        self._out.count("unspaced_bytes", self._unspaced_bytes)
        self.number += 1
        self._clear()

    def _clear(self) -> None:
        self._rows: dict[str, list[Row]] = {name: [] for name in SCHEMAS}
        self._bytes = dict.fromkeys(SCHEMAS, 0)
        self._funnel = Funnel()
        self._unspaced_bytes = 0


def _table(row: Row) -> str:
    return "rejects" if "reason" in row else "documents"


def _text_bytes(row: Row) -> int:
    return 0 if "reason" in row else len(row["text"].encode())
