"""Words, lines and paragraphs of a document, computed once for all rules.

- `TextMeasures`: words, lines and counts, from which the rules compute their scores
- `Duplicates`: lines and paragraphs that occurred earlier in the document

Lengths are in characters, not bytes. Words are separated by white space; lines are the nonblank ones, without leading
and trailing white space; paragraphs are runs of such lines.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stages.clean.measures.character_classes import CLASSES
from stages.clean.measures.repetition import NGRAMS, count_duplicates, count_repeated_ngrams
from stages.clean.measures.text_scan import Count, Line, Table, scan
from stages.common.word_classes import SPACED
from stages.common.word_hashes import Bytes, Hashes, Positions, words


@dataclass(frozen=True)
class TextMeasures:
    """Words, lines and counts of one document; built by `of`."""

    text: str
    data: Bytes
    """(bytes,) uint8, the text in UTF-8."""
    word_hashes: Hashes
    """(words,) uint64, case-insensitive in ASCII."""
    word_characters: Positions
    """(words,) int64, length of each word."""
    lines: Table
    """(lines, columns of `Line`) int64."""
    line_hashes: Hashes
    """(lines,) uint64, hash of the bytes from START to END."""
    counts: tuple[int, ...]
    """Indexed by `Count`."""

    @classmethod
    def of(cls, text: str) -> "TextMeasures":
        """Measure a text."""
        data = np.frombuffer(text.encode(), dtype=np.uint8)
        split = words(data, SPACED)
        characters = np.empty(len(split.hashes), dtype=np.int64)
        lines = np.zeros((text.count("\n") + 1, len(Line)), dtype=np.int64)
        hashes = np.empty(len(lines), dtype=np.uint64)
        counts = np.zeros(len(Count), dtype=np.int64)
        count = scan(data, split, CLASSES, characters, lines, hashes, counts)
        return cls(text, data, split.hashes, characters, lines[:count], hashes[:count], tuple(counts.tolist()))

    @property
    def words(self) -> int:
        """Number of words."""
        return len(self.word_hashes)

    def line_share(self, column: Line) -> float:
        """Share of the lines with a 1 in this column; 0 if there are no lines."""
        return self.line_sums[column] / max(len(self.lines), 1)

    @cached_property
    def line_sums(self) -> tuple[int, ...]:
        """Column sums, indexed by `Line`."""
        return tuple(self.lines.sum(axis=0).tolist())

    @cached_property
    def duplicates(self) -> "Duplicates":
        """Duplicate lines and paragraphs."""
        totals = np.zeros(4, dtype=np.int64)
        offsets, characters, paragraph_of = (
            np.ascontiguousarray(self.lines[:, column]) for column in (Line.OFFSET, Line.CHARACTERS, Line.PARAGRAPH)
        )
        count_duplicates(self.line_hashes, offsets, characters, paragraph_of, totals)
        paragraphs = int(self.lines[-1, Line.PARAGRAPH]) + 1 if len(self.lines) else 0
        return Duplicates(len(self.lines), paragraphs, *totals.tolist())

    @cached_property
    def ngrams(self) -> tuple[float, ...]:
        """For 2 to 10 words: share of characters in the most frequent n-gram (2 to 4) or in duplicates (5 to 10)."""
        totals = np.zeros(len(NGRAMS), dtype=np.int64)
        count_repeated_ngrams(self.word_hashes, self.word_characters, totals)
        return tuple((totals / max(self.counts[Count.CHARACTERS], 1)).tolist())


@dataclass(frozen=True)
class Duplicates:
    """Lines and paragraphs that occurred earlier in the document."""

    lines: int
    """All lines of the document."""
    paragraphs: int
    """All paragraphs of the document."""
    duplicate_lines: int
    duplicate_paragraphs: int
    line_characters: int
    """Characters in duplicate lines."""
    paragraph_characters: int
    """Characters in duplicate paragraphs."""
