"""Spans to cut from documents, and the text that remains.

- `CUTS`: schema of the table of spans; `cuts_by_file` builds a table per file
- `CutSource`: spans of all files of documents, which a step wrote
- `apply_cuts`: the text without its spans
"""

import itertools
import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from stages.common.word_hashes import Positions

CUTS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""A row per span: the document's row in its file, and byte offsets into its UTF-8 text, on character boundaries."""
_PARAGRAPH_BREAK = re.compile(r"\n[^\S\n]*\n")


def cuts_by_file(
    files: Positions, rows: Positions, starts: Positions, ends: Positions, reason: str, count: int
) -> list[pa.Table]:
    """Group spans (one value per array and span) with a common reason into a table `CUTS` for each of `count` files."""
    order = np.argsort(files, kind="stable")
    borders = np.searchsorted(files[order], np.arange(count + 1))
    columns = [rows[order], starts[order], ends[order], pa.repeat(pa.scalar(reason), len(rows))]
    table = pa.table(columns, schema=CUTS)
    return [table.slice(begin, end - begin) for begin, end in itertools.pairwise(borders.tolist())]


class CutSource(Protocol):
    """Spans of all files of documents; picklable, read where they are applied."""

    def read(self, number: int) -> pa.Table:
        """Spans of one file of documents, as `CUTS`."""
        ...


def all_cuts(files: Sequence[CutSource], number: int) -> pa.Table:
    """Spans of all steps in one file of documents, sorted by row and start."""
    spans = pa.concat_tables([CUTS.empty_table(), *(file.read(number) for file in files)])
    return spans.sort_by([("row", "ascending"), ("start", "ascending"), ("end", "ascending"), ("reason", "ascending")])


def apply_cuts(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Remove spans from a text.

    Of the two runs of white space that meet at a cut, the one with more line breaks is kept, so no empty lines
    accumulate; a line or paragraph break inside the cut still separates the text on both sides; if neither side has
    white space, a single space is inserted if the cut began or ended with white space or two words would join. White
    space at the ends of a text that was cut there is removed.

    Args:
        text: the document.
        spans: (start, end) byte offsets in UTF-8, on character boundaries, sorted by start; they may overlap.
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
