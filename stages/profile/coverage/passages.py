"""Passages of documents, drawn for measures that are too slow for the whole corpus.

- `PassageSample`: which passages are drawn; depends on id and position alone
- `Totals`, `ratio_interval`: totals of a slice and their ratios with intervals, from sums over drawn passages
- `language_of`: language in which a document is read

Each passage is drawn by itself with the same probability (Poisson sampling; Saerndal et al. 1992, 3.2), so that
estimate and error are right for long and short documents, and sums merge by addition.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import xxhash

from stages.common.statistics import Interval
from stages.profile.coverage.document_sample import Z

PASSAGE = 2_000
"""Characters of a passage; a word at its end is not cut if it ends within `_SLACK` more."""
_SLACK = 100
_LETTERS = 400
"""Characters from which the script of a document without a language is seen."""


class Passage(NamedTuple):
    """A drawn piece of a document."""

    document_id: str
    text: str


class PassageSample(NamedTuple):
    """The rule by which passages are drawn."""

    rate: float
    """Probability of a passage, above 0, at most 1."""

    def drawn(self, document_id: str, text: str) -> Iterator[Passage]:
        """Drawn passages of a document."""
        limit = int(self.rate * 2**64)
        key = document_id.encode()
        for number, start in enumerate(range(0, max(len(text), 1), PASSAGE)):
            if xxhash.xxh64_intdigest(key, seed=number + 2) < limit:
                passage = text[_border(text, start) : _border(text, start + PASSAGE)].strip()
                if passage:
                    yield Passage(document_id, passage)


def rate_for(sample_bytes: float, corpus_bytes: float) -> float:
    """Rate at which about `sample_bytes` of a corpus are drawn, 1 for a corpus that is not larger."""
    return min(1.0, sample_bytes / corpus_bytes) if corpus_bytes > 0 else 1.0


def _border(text: str, position: int) -> int:
    """Position of the next white space from `position` on, within `_SLACK` characters; 0 stays 0."""
    if position <= 0 or position >= len(text) or text[position - 1].isspace():
        return min(position, len(text))
    end = min(position + _SLACK, len(text))
    return next((place for place in range(position, end) if text[place].isspace()), position)


class Totals(NamedTuple):
    """Sum and sum of squares of what each drawn passage has."""

    total: float = 0.0
    squares: float = 0.0

    def plus(self, value: float) -> "Totals":
        """With one more passage."""
        return Totals(self.total + value, self.squares + value * value)

    def estimate(self, rate: float) -> Interval:
        """Total of the slice, 95 %: the sum over `rate` (Horvitz & Thompson 1952); exact if all passages were drawn."""
        reach = Z * math.sqrt((1 - rate) * self.squares) / rate
        return Interval(self.total / rate, max(self.total / rate - reach, self.total), self.total / rate + reach)


def language_of(language: str | None, text: str) -> str:
    """The document's language; of one without, `en` if its first letters are Latin, else `unknown`."""
    letters = [character for character in text[:_LETTERS] if character.isalpha()]
    return language or ("en" if sum(map(str.isascii, letters)) >= 0.9 * len(letters) else "unknown")


def merged(first: dict[str, list[float]], second: dict[str, list[float]]) -> dict[str, list[float]]:
    """Sums of both by name; each is a list of numbers of the same length."""
    sums = dict(first)
    for name, values in second.items():
        mine = sums.get(name)
        sums[name] = values if mine is None else [a + b for a, b in zip(mine, values, strict=True)]
    return sums


def ratio_interval(first: list[float], second: list[float], products: float, rate: float) -> Interval:
    """Ratio of two totals, 95 %, by linearization (Saerndal et al. 1992, 5.6); NaN if the second is 0.

    Args:
        first: [sum, sum of squares] of the numerator over drawn passages.
        second: the same of the denominator.
        products: sum of their products.
        rate: of the sample.
    """
    if not second[0]:
        return Interval(math.nan, math.nan, math.nan)
    ratio = first[0] / second[0]
    residuals = max(first[1] - 2 * ratio * products + ratio**2 * second[1], 0.0)
    reach = Z * math.sqrt((1 - rate) * residuals) / second[0]
    return Interval(ratio, max(ratio - reach, 0.0), ratio + reach)
