"""Items of a profile's measures as shares of a whole, with 95 % intervals.

- `are_parts`: whether the items of a measure are parts of a whole
- `Parts`: those of one slice; `dimension_parts`: slices of a dimension among all documents
- `share_interval`: of a share of some draws; `share_change`: of the difference between two shares
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.report.profile.figures import Figure, Figures
from stages.common.statistics import Interval, wilson_interval

PARTS = frozenset({"share", "documents", "mentions", "tokens", "words", "bytes"})
"""Units of measures whose items are parts of a whole."""
WHOLES = {
    "mentions": "length.words.total",
    "ngrams.unigram.top": "vocabulary.unigram.tokens",
    "ngrams.bigram.top": "vocabulary.bigram.tokens",
    "ngrams.trigram.top": "vocabulary.trigram.tokens",
}
"""Measure, or unit of measures, of which only the most frequent items are listed -> measure of the whole."""
NOT_PARTS = frozenset({"quantile", "distance"})
"""Last parts of names of measures whose items are not parts of a whole."""
COUNTED_BY_WORD = frozenset({"mentions", "tokens", "words"})
"""Units of which an interval takes each one for a draw of its own, and not each document."""
OTHER = "other"
"""Value of the slice that holds all values without a slice of their own."""
COMPLETE = 0.999
"""Sum of shares from which a list of items counts as complete."""


def are_parts(rows: Sequence[Figure]) -> bool:
    """Whether the items of a measure are parts of a whole, by its name and unit."""
    has_items = any(row.item is not None for row in rows)
    last = rows[0].measure.rpartition(".")[2]
    return (has_items or rows[0].unit == "share") and rows[0].unit in PARTS and last not in NOT_PARTS


@dataclass(frozen=True)
class Parts:
    """Items of a measure as shares of its whole."""

    rows: Mapping[str, Figure]
    whole: float
    """In the unit of the rows; 1 for shares."""
    trials: float
    """Draws by which an interval is computed: documents, or words."""
    is_complete: bool
    """Whether an item that is not listed does not occur."""

    @classmethod
    def of(cls, figures: Figures, name: str, rows: Sequence[Figure]) -> "Parts":
        """The items of a measure of a slice."""
        items = {row.item or "": row for row in rows}
        listed = math.fsum(row.value for item, row in items.items() if item)
        whole, documents = 1.0, figures.documents(name)
        if rows[0].unit != "share":
            known = WHOLES.get(rows[0].measure) or WHOLES.get(rows[0].unit) or ""
            total = figures.one("documents" if rows[0].unit == "documents" else known, name)
            whole = max(total.value, listed) if total else listed
        trials = whole if rows[0].unit in COUNTED_BY_WORD else documents
        # Shares that add up to more than all, such as of documents with a keyword, are a list of the largest.
        return cls(items, whole, trials, COMPLETE <= (listed / whole if whole else 1.0) <= 1 / COMPLETE)

    def value(self, item: str) -> float | None:
        """Value of an item; None if it is not listed and may occur."""
        return self.rows[item].value if item in self.rows else 0.0 if self.is_complete else None

    def interval(self, item: str) -> Interval:
        """Share of an item with its stated error, else with that of a sample of documents.

        An item that a list of the most frequent ones does not name counts as its rarest one, so that changes are rather
        too small.
        """
        row = self.rows.get(item)
        if row is None:
            smallest = min((known.value for known in self.rows.values()), default=0.0)
            bound = 0.0 if self.is_complete or not self.whole else smallest / self.whole
            return Interval(bound, 0.0, max(bound, share_interval(0.0, self.trials).high))
        share = row.value / self.whole if self.whole else 0.0
        sampled = share_interval(min(max(share, 0.0), 1.0), self.trials)
        if row.low is None or row.high is None or not self.whole:
            return Interval(share, sampled.low, sampled.high)
        return Interval(share, min(row.low / self.whole, sampled.low), max(row.high / self.whole, sampled.high))


def share_interval(share: float, trials: float) -> Interval:
    """A share of some draws with Wilson's interval; 0 to 1 without any."""
    return wilson_interval(share * trials, trials) if trials >= 1 else Interval(share, 0.0, 1.0)


def share_change(first: Interval, second: Interval) -> Interval:
    """First minus second; its interval follows from those of the two.

    Newcombe (1998, Statistics in Medicine 17, method 10), for any pair of intervals (MOVER, Zou & Donner 2008). The two
    corpora count as independent samples: if one is a part of the other, the interval is wider than it need be.
    """
    change = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Interval(change, change - below, change + above)


def dimension_parts(figures: Figures, dimension: str) -> Parts:
    """Documents of the slices of a dimension (`genre`) among all documents; no rows if the corpus has none."""
    rows = {
        name.partition("=")[2]: row
        for name in figures.slices
        if name.partition("=")[0] == dimension and (row := figures.one("documents", name))
    }
    whole = max(figures.documents(), 1.0)
    listed = math.fsum(row.value for row in rows.values())
    return Parts(rows, whole, whole, OTHER not in rows and listed >= COMPLETE * whole)
