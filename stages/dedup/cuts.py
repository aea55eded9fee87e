"""Spans of documents that are cut from their text, and how what remains is joined.

- `CUTS`: the Arrow table of spans; `cuts_by_file` makes one for each file
- `CutFile`: spans of all files in one Arrow file, a record batch per file of documents
- `apply_cuts`: the text without its spans
- `snap`: move a span's ends inwards to where no word and no character is broken
"""

import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import pyarrow as pa
import pyarrow.ipc

from infra.workers.partitions import PartitionResult, PartitionWriter
from stages.common.word_hashes import Bytes, Positions

CUTS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""A row a span: the document's row in its file, and bytes of its UTF-8 text, on character borders."""
_PARAGRAPH_BREAK = re.compile(r"\n[^\S\n]*\n")


def cuts_by_file(
    files: Positions, rows: Positions, starts: Positions, ends: Positions, reason: str, count: int
) -> list[pa.Table]:
    """A table of `CUTS` for each of `count` files, of spans (one value of each array a span) with one reason."""
    order = np.argsort(files, kind="stable")
    borders = np.searchsorted(files[order], np.arange(count + 1))
    columns = [rows[order], starts[order], ends[order], pa.repeat(pa.scalar(reason), len(rows))]
    table = pa.table(columns, schema=CUTS)
    return [table.slice(begin, end - begin) for begin, end in itertools.pairwise(borders.tolist())]


def write_batches(out: PartitionWriter, path: str, tables: Sequence[pa.Table]) -> None:
    """Write tables of one schema as the record batches of one Arrow file, so that each can be read by itself."""
    buffer = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd")  # ids repeat, row after row
    with pa.ipc.new_file(buffer, tables[0].schema, options=options) as file:
        for table in tables:
            batches = table.combine_chunks().to_batches()
            file.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], table.schema))
    out.write(path, buffer.getvalue())


def read_batch(result: PartitionResult, path: str, number: int) -> pa.Table:
    """One table of a file that `write_batches` wrote; the others are not read."""
    part = next(entry.part for entry in result.marker.files if entry.path == path)
    assert part is not None
    with result.folder.open(part) as file:
        return pa.Table.from_batches([pa.ipc.open_file(file).get_batch(number)])


@dataclass(frozen=True)
class CutFile:
    """Where the spans of all files of documents are; picklable, read where they are applied."""

    result: PartitionResult
    path: str = "cuts.arrow"

    def of_file(self, number: int) -> pa.Table:
        """Spans of the `number`-th file of documents, as `CUTS`."""
        return read_batch(self.result, self.path, number)


def all_cuts(files: Sequence[CutFile], number: int) -> pa.Table:
    """Spans that several steps ask for in one file of documents, by row and start."""
    found = pa.concat_tables([CUTS.empty_table(), *(file.of_file(number) for file in files)])
    return found.sort_by([("row", "ascending"), ("start", "ascending"), ("end", "ascending"), ("reason", "ascending")])


def apply_cuts(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text without its spans.

    Of the two runs of white space that meet at a cut, the one with more line breaks stays, so no empty lines pile up;
    a line or paragraph break inside the cut still separates what stood on its two sides; where neither side has white
    space, one space stands for what the cut began or ended with, or keeps two words apart. Nothing is left of white
    space at the ends of a text that was cut there.

    Args:
        text: the document.
        spans: (start, end) bytes of its UTF-8 encoding, on character borders, sorted by start; they may overlap.
    """
    data = text.encode()
    pieces: list[str] = []
    position = 0
    removed = ""
    for start, end in [*spans, (len(data), len(data))]:
        piece = data[position:start].decode()
        if piece and not piece.isspace():
            _join(pieces, removed, piece) if position else pieces.append(piece)
            removed = ""
        else:
            removed += piece
        removed += data[max(position, start) : max(position, end)].decode()
        position = max(position, end)
    return "".join(pieces).rstrip() if removed else "".join(pieces)


def _join(pieces: list[str], removed: str, right: str) -> None:
    following = right.lstrip()
    if pieces:
        body = pieces[-1].rstrip()
        runs = (right[: len(right) - len(following)], pieces[-1][len(body) :])
        gap = max(runs, key=lambda run: (run.count("\n"), bool(run)))
        if _PARAGRAPH_BREAK.search(removed) and gap.count("\n") < 2:
            gap = "\n\n"
        elif "\n" in removed and "\n" not in gap:
            gap = "\n"
        elif not gap and (removed != removed.strip() or (body[-1].isalnum() and following[0].isalnum())):
            gap = " "
        pieces[-1] = body + gap
    pieces.append(following)


@numba.njit(cache=True)
def snap(data: Bytes, starts: Positions, ends: Positions, start: int, end: int) -> tuple[int, int]:
    """Move the ends of a span inwards to where they break no word and no character.

    Args:
        data: (bytes,) uint8, UTF-8.
        starts: (words,) int64, first bytes of the words.
        ends: (words,) int64, bytes after the words.
        start: first byte of the span.
        end: byte after the span.

    Returns:
        The new start and end; the start is not before the end where nothing is left.
    """
    word = np.searchsorted(ends, start, side="right")
    if word < len(starts) and starts[word] < start:
        start = ends[word]
    while start < len(data) and data[start] & 0xC0 == 0x80:
        start += 1
    word = np.searchsorted(ends, end, side="right")
    if word < len(starts) and starts[word] < end:
        end = starts[word]
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end -= 1
    return start, end
