"""Exchange of rows between partitions: from many writers to many destinations, in linearly many files and reads.

- `write_pieces`, `Pieces`: tables in one file, of which each can be read by itself
- `Exchange`: where the rows of each writer go; `Exchange.write` is called by writers, `collect` after all of them
- `Incoming`: rows by destination

A file for each pair of a writer and a destination, or a read of each writer's file by each destination, is quadratic in
the size of a corpus. Here a writer divides its rows into up to `FAN_OUT` pieces of one file. If there are more
destinations, a piece is for several of them, and a further round divides it: groups of files are merged piece by piece,
as in a radix sort. Per round, each byte is written once and read once, and a file is opened up to `FAN_OUT` times.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from infra.store.filesystem import Folder
from infra.workers.partitions import Partition, PartitionMap, PartitionResult, PartitionWriter

FAN_OUT = 256
"""Pieces per file: two rounds for up to 65,536 destinations."""
_OFFSET_BYTES = 8
_TO = "to"

Destinations = npt.NDArray[Any]


def write_pieces(
    out: PartitionWriter, path: str, tables: Sequence[pa.Table | pa.RecordBatch], compression: str | None = None
) -> None:
    """Write tables of one schema as one file: the offsets of all pieces, then an Arrow stream per table with rows."""
    options = pa.ipc.IpcWriteOptions(compression=compression)
    streams = [_stream(table, options) if len(table) else b"" for table in tables]
    sizes = [_OFFSET_BYTES * (len(tables) + 1), *(len(stream) for stream in streams)]
    out.write(path, b"".join([np.cumsum(sizes, dtype="<u8").tobytes(), *streams]))


def _stream(table: pa.Table | pa.RecordBatch, options: Any) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
        stream.write(table.combine_chunks() if isinstance(table, pa.Table) else table)
    return sink.getvalue()


@dataclass(frozen=True)
class Pieces:
    """A file of `write_pieces`; picklable."""

    folder: Folder
    path: str
    schema: pa.Schema

    @classmethod
    def of(cls, result: PartitionResult, path: str, schema: pa.Schema) -> "Pieces":
        """The file that a partition wrote as `path`."""
        return cls(result.folder, result.location(path), schema)

    def read(self, number: int) -> pa.Table:
        """Read one piece, and nothing else."""
        header = self.folder.read_range(self.path, _OFFSET_BYTES * number, _OFFSET_BYTES * (number + 2))
        start, end = np.frombuffer(header, dtype="<u8").tolist()
        if start == end:
            return self.schema.empty_table()
        return pa.ipc.open_stream(self.folder.read_range(self.path, start, end)).read_all()

    def all(self) -> Iterator[pa.Table]:
        """Read the pieces with rows, in order, in one read of the whole file."""
        data = pa.py_buffer(self.folder.read(self.path))
        first = int(np.frombuffer(data, dtype="<u8", count=1)[0])
        offsets = np.frombuffer(data, dtype="<u8", count=first // _OFFSET_BYTES).tolist()
        for start, end in pairwise(offsets):
            if end > start:
                yield pa.ipc.open_stream(data.slice(start, end - start)).read_all()


@dataclass(frozen=True)
class Incoming:
    """Rows by destination; picklable."""

    folder: Folder
    schema: pa.Schema
    files: Sequence[Sequence[str]]
    """Paths of the files with the rows of destinations [index x pieces, (index + 1) x pieces)."""
    pieces: int

    def tables(self, destination: int) -> Iterator[pa.Table]:
        """Rows for one destination, a table per file."""
        index, piece = divmod(destination, self.pieces)
        return (Pieces(self.folder, path, self.schema).read(piece) for path in self.files[index])

    def read(self, destination: int) -> pa.Table:
        """All rows for one destination."""
        return pa.concat_tables([self.schema.empty_table(), *self.tables(destination)])

    def all(self) -> Iterator[pa.Table]:
        """Rows for all destinations; each file is read once."""
        for paths in self.files:
            for path in paths:
                yield from Pieces(self.folder, path, self.schema).all()


@dataclass(frozen=True)
class Exchange:
    """Rows of one schema for numbered destinations; picklable."""

    schema: pa.Schema
    destinations: int
    compression: str | None = None
    """Arrow IPC compression, for rows that repeat strings."""
    fan_out: int = field(default_factory=lambda: FAN_OUT)

    @property
    def pieces(self) -> list[int]:
        """Pieces per file in each round; their product is at least the number of destinations."""
        rounds = 1
        while self.fan_out**rounds < self.destinations:
            rounds += 1
        last = max(1, math.ceil(self.destinations ** (1 / rounds)))
        last += last**rounds < self.destinations  # the root is a float
        first = -(-self.destinations // last ** (rounds - 1))
        return [max(1, first), *[last] * (rounds - 1)]

    def write(self, out: PartitionWriter, path: str, table: pa.Table | pa.RecordBatch, to: Destinations) -> None:
        """Write a partition's rows.

        Args:
            out: the partition's writer.
            path: name of the file; the same in all partitions.
            table: the rows, of this exchange's schema.
            to: (rows,) integers, destination of each row.
        """
        assert table.schema.equals(self.schema), f"{table.schema} is not {self.schema}"
        self._write(out, path, table, to, 0)

    def collect(self, maps: PartitionMap, phase: str, results: Sequence[PartitionResult], path: str) -> Incoming:
        """Rows by destination, after further rounds if there are more than `FAN_OUT` destinations.

        Args:
            maps: runs the phases `PHASE_1`, `PHASE_2`, ... of the further rounds.
            phase: name of the exchange.
            results: results of all writers.
            path: the file that they wrote.
        """
        pieces = self.pieces
        files = [[result.location(path) for result in results]]
        for number in range(1, len(pieces)):
            merged: list[list[str]] = []
            groups: list[Partition] = []
            for index, paths in enumerate(files):
                for piece in range(pieces[number - 1]):
                    prefix = index * pieces[number - 1] + piece
                    merged.append([])
                    starts = range(0, len(paths), max(2, pieces[number - 1]))
                    groups += [
                        Partition(f"{prefix:06d}-{start:06d}", (prefix, piece, paths[start : start + starts.step]))
                        for start in starts
                    ]
            folder = results[0].folder if results else maps.folder
            merge = partial(_merge, self, folder, number)
            for group, result in zip(groups, maps.map(f"{phase}_{number}", merge, groups), strict=True):
                merged[group.payload[0]].append(result.location("rows"))
            files = merged
        return Incoming(results[0].folder if results else maps.folder, self.schema, files, pieces[-1])

    def _write(self, out: PartitionWriter, path: str, table: Any, to: Destinations, number: int) -> None:
        """Divide rows by the digit of their destinations that belongs to this round."""
        pieces = self.pieces
        span = math.prod(pieces[number + 1 :])
        digits = (to // span % pieces[number]).astype(np.uint16)
        if number + 1 < len(pieces):
            table = table.append_column(_TO, pa.array(to, pa.uint32())) if number == 0 else table
        elif _TO in table.schema.names:
            table = table.drop_columns([_TO])
        if (digits[1:] < digits[:-1]).any():
            order = np.argsort(digits, kind="stable")
            digits, table = digits[order], table.take(pa.array(order))
        bounds = np.searchsorted(digits, np.arange(pieces[number] + 1)).tolist()
        tables = [table.slice(begin, end - begin) for begin, end in pairwise(bounds)]
        write_pieces(out, path, tables, self.compression)


def _merge(
    exchange: Exchange, folder: Folder, number: int, payload: tuple[int, int, Sequence[str]], out: PartitionWriter
) -> None:
    _, piece, paths = payload
    schema = exchange.schema.append(pa.field(_TO, pa.uint32()))
    tables = [Pieces(folder, path, schema).read(piece) for path in paths]
    table = pa.concat_tables([schema.empty_table(), *tables])
    exchange._write(out, "rows", table, table.column(_TO).to_numpy(), number)
