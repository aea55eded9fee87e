"""The first quality filters: each a named rule with its threshold; words and lines are found once per document.

- `QualityThresholds`: the thresholds, with the papers' values as defaults
- `quality_verdict`: the first rule that a document breaks
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import Field

from data_schemas.config import FrozenConfig

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
"""Gopher's eight (Rae et al. 2021, 2112.11446, A.1.1)."""
BULLETS = ("•", "‣", "▶", "◦", "■", "-", "*")
_ALPHABETIC = re.compile(r"[^\W\d_]")


class QualityThresholds(FrozenConfig):
    """Defaults are those of Gopher (Rae et al. 2021, 2112.11446, A.1.1, table A1) but where a field says otherwise."""

    min_words: int = Field(50, ge=0, description="words in the document")
    max_words: int = Field(100_000, ge=1, description="words in the document")
    min_mean_word_length: float = Field(3.0, ge=0, description="characters per word")
    max_mean_word_length: float = Field(10.0, ge=0, description="characters per word")
    max_hashes_per_word: float = Field(0.1, ge=0, description="`#` characters per word")
    max_ellipses_per_word: float = Field(0.1, ge=0, description="`...` or `…` per word")
    max_bullet_lines: float = Field(0.9, ge=0, le=1, description="share of lines that begin with a bullet")
    max_ellipsis_lines: float = Field(0.3, ge=0, le=1, description="share of lines that end in an ellipsis")
    min_alphabetic_words: float = Field(0.8, ge=0, le=1, description="share of words with a letter")
    min_stop_words: int = Field(2, ge=0, le=8, description="different ones of the eight stop words")
    min_stop_word_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of words that are one of the eight; not Gopher's: a long text in another language has two "
        "of them in names and titles, while of 12,883 English documents of eight kinds none had under 0.012",
    )
    max_duplicate_lines: float = Field(0.3, ge=0, le=1, description="share of lines that stood before")
    max_duplicate_paragraphs: float = Field(0.3, ge=0, le=1, description="share of paragraphs that stood before")
    max_duplicate_line_characters: float = Field(0.2, ge=0, le=1, description="share of characters in such lines")
    max_duplicate_paragraph_characters: float = Field(
        0.2, ge=0, le=1, description="share of characters in such paragraphs"
    )


@dataclass(frozen=True)
class DocumentParts:
    """A document's words, lines and paragraphs, each found once."""

    text: str

    @cached_property
    def words(self) -> list[str]:
        """Separated by white space."""
        return self.text.split()

    @cached_property
    def stop_words(self) -> list[str]:
        """The words that are stop words, in lower case."""
        return [word for word in map(str.lower, self.words) if word in STOP_WORDS]

    @cached_property
    def lines(self) -> list[str]:
        """Without blank ones, stripped."""
        return [line for line in map(str.strip, self.text.split("\n")) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        """Separated by blank lines, stripped."""
        return [part for part in map(str.strip, re.split(r"\n\s*\n", self.text)) if part]


Rule = Callable[[DocumentParts, QualityThresholds], bool]


def quality_verdict(text: str, thresholds: QualityThresholds) -> str | None:
    """Name of the first rule that the document breaks, or None."""
    parts = DocumentParts(text)
    return next((name for name, breaks in RULES.items() if breaks(parts, thresholds)), None)


def _too_few_words(parts: DocumentParts, limits: QualityThresholds) -> bool:
    return len(parts.words) < max(limits.min_words, 1)


def _too_many_words(parts: DocumentParts, limits: QualityThresholds) -> bool:
    return len(parts.words) > limits.max_words


def _word_length(parts: DocumentParts, limits: QualityThresholds) -> bool:
    mean = sum(map(len, parts.words)) / len(parts.words)
    return not limits.min_mean_word_length <= mean <= limits.max_mean_word_length


def _hashes(parts: DocumentParts, limits: QualityThresholds) -> bool:
    return parts.text.count("#") > limits.max_hashes_per_word * len(parts.words)


def _ellipses(parts: DocumentParts, limits: QualityThresholds) -> bool:
    return parts.text.count("...") + parts.text.count("…") > limits.max_ellipses_per_word * len(parts.words)


def _bullet_lines(parts: DocumentParts, limits: QualityThresholds) -> bool:
    return _share(parts.lines, lambda line: line.startswith(BULLETS)) > limits.max_bullet_lines


def _ellipsis_lines(parts: DocumentParts, limits: QualityThresholds) -> bool:
    return _share(parts.lines, lambda line: line.endswith(("...", "…"))) > limits.max_ellipsis_lines


def _alphabetic_words(parts: DocumentParts, limits: QualityThresholds) -> bool:
    return _share(parts.words, lambda word: bool(_ALPHABETIC.search(word))) < limits.min_alphabetic_words


def _stop_words(parts: DocumentParts, limits: QualityThresholds) -> bool:
    return len(set(parts.stop_words)) < limits.min_stop_words


def _stop_word_share(parts: DocumentParts, limits: QualityThresholds) -> bool:
    return len(parts.stop_words) < limits.min_stop_word_share * len(parts.words)


def _duplicate_lines(parts: DocumentParts, limits: QualityThresholds) -> bool:
    return _duplicated(parts.lines) > limits.max_duplicate_lines


def _duplicate_paragraphs(parts: DocumentParts, limits: QualityThresholds) -> bool:
    return _duplicated(parts.paragraphs) > limits.max_duplicate_paragraphs


def _duplicate_line_characters(parts: DocumentParts, limits: QualityThresholds) -> bool:
    return _duplicated_characters(parts.lines, len(parts.text)) > limits.max_duplicate_line_characters


def _duplicate_paragraph_characters(parts: DocumentParts, limits: QualityThresholds) -> bool:
    return _duplicated_characters(parts.paragraphs, len(parts.text)) > limits.max_duplicate_paragraph_characters


RULES: dict[str, Rule] = {
    "gopher_too_few_words": _too_few_words,
    "gopher_too_many_words": _too_many_words,
    "gopher_word_length": _word_length,
    "gopher_hashes": _hashes,
    "gopher_ellipses": _ellipses,
    "gopher_bullet_lines": _bullet_lines,
    "gopher_ellipsis_lines": _ellipsis_lines,
    "gopher_alphabetic_words": _alphabetic_words,
    "gopher_stop_words": _stop_words,
    "stop_word_share": _stop_word_share,
    "gopher_duplicate_lines": _duplicate_lines,
    "gopher_duplicate_paragraphs": _duplicate_paragraphs,
    "gopher_duplicate_line_characters": _duplicate_line_characters,
    "gopher_duplicate_paragraph_characters": _duplicate_paragraph_characters,
}


def _share(pieces: Sequence[str], holds: Callable[[str], bool]) -> float:
    return sum(map(holds, pieces)) / len(pieces)


def _duplicated(pieces: Sequence[str]) -> float:
    """Share of the pieces that stood before in the document."""
    return (len(pieces) - len(set(pieces))) / len(pieces)


def _duplicated_characters(pieces: Sequence[str], characters: int) -> float:
    """Share of the document's characters in pieces that stood before."""
    return sum((times - 1) * len(piece) for piece, times in Counter(pieces).items()) / characters
