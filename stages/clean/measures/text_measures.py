"""A document's words, lines and paragraphs, found once for all rules.

- `TextMeasures`: the parts and the counts that the rules' scores are made of
- `Duplicates`: lines and paragraphs that stood before

Lengths are in characters, not bytes. Words are separated by white space; lines are those with something on them,
without the white space around it; paragraphs are runs of such lines.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stages.clean.measures.character_classes import CLASSES
from stages.clean.measures.repetition import NGRAMS, duplicate_parts, repeated_ngrams
from stages.clean.measures.text_scan import Count, Line, Table, scan
from stages.common.word_hashes import SPACED, Bytes, Hashes, Positions, words


@dataclass(frozen=True)
class TextMeasures:
    """One document's parts; made by `of`."""

    text: str
    data: Bytes
    """(bytes,) uint8, the text in UTF-8."""
    word_hashes: Hashes
    """(words,) uint64, without ASCII case."""
    word_characters: Positions
    """(words,) int64."""
    lines: Table
    """(lines, columns of `Line`) int64."""
    line_hashes: Hashes
    """(lines,) uint64, of the bytes from START to END."""
    counts: tuple[int, ...]
    """By `Count`."""

    @classmethod
    def of(cls, text: str) -> "TextMeasures":
        """Find the parts of a text."""
        data = np.frombuffer(text.encode(), dtype=np.uint8)
        found = words(data, SPACED)
        characters = np.empty(len(found.hashes), dtype=np.int64)
        lines = np.zeros((text.count("\n") + 1, len(Line)), dtype=np.int64)
        hashes = np.empty(len(lines), dtype=np.uint64)
        counts = np.zeros(len(Count), dtype=np.int64)
        filled = scan(data, found, CLASSES, characters, lines, hashes, counts)
        return cls(text, data, found.hashes, characters, lines[:filled], hashes[:filled], tuple(counts.tolist()))

    @property
    def words(self) -> int:
        """How many words."""
        return len(self.word_hashes)

    def line_share(self, column: Line) -> float:
        """Share of the lines that have a 1 there; 0 where there are no lines."""
        return self.line_sums[column] / max(len(self.lines), 1)

    @cached_property
    def line_sums(self) -> tuple[int, ...]:
        """By column of `Line`."""
        return tuple(self.lines.sum(axis=0).tolist())

    @cached_property
    def duplicates(self) -> "Duplicates":
        """Lines and paragraphs that stood before."""
        found = np.zeros(4, dtype=np.int64)
        offsets, characters, numbers = (
            np.ascontiguousarray(self.lines[:, one]) for one in (Line.OFFSET, Line.CHARACTERS, Line.PARAGRAPH)
        )
        duplicate_parts(self.line_hashes, offsets, characters, numbers, found)
        paragraphs = int(self.lines[-1, Line.PARAGRAPH]) + 1 if len(self.lines) else 0
        return Duplicates(len(self.lines), paragraphs, *found.tolist())

    @cached_property
    def ngrams(self) -> tuple[float, ...]:
        """For 2 to 10 words: share of the text's characters in the commonest n-gram (2 to 4), or in n-grams that
        stood before (5 to 10)."""
        found = np.zeros(len(NGRAMS), dtype=np.int64)
        repeated_ngrams(self.word_hashes, self.word_characters, found)
        return tuple((found / max(self.counts[Count.CHARACTERS], 1)).tolist())


@dataclass(frozen=True)
class Duplicates:
    """What stood before in the document."""

    lines: int
    """Of the document."""
    paragraphs: int
    """Of the document."""
    duplicate_lines: int
    duplicate_paragraphs: int
    line_characters: int
    """Of the duplicate lines."""
    paragraph_characters: int
    """Of the duplicate paragraphs."""
