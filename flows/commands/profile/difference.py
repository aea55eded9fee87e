"""Differences between two profiles, the largest movers first.

- `Change`: a share of one corpus minus that of the other, with its 95 % interval
- `FigureChange`: a figure that is no share of anything
- `Difference`, `difference`: both, and what was not compared
- `by_group`: changes of one kind together; `largest_movers`: the first of all

Shares are those of slices among all documents (`genre=news`), and those of items within their measure (an entity, a
topic, a bucket of lengths). Changes are ranked by the end of their interval that is nearer to 0, so that a change that
may be chance never comes before one that is not.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from data_schemas.errors import NotFoundError
from flows.commands.profile.shares import OTHER, Parts, are_parts, dimension_parts, share_change, share_interval
from flows.report.profile.figures import ALL, Figure, Figures
from flows.report.profile.sections import FOLDED, LEFT_OUT, READ
from stages.common.statistics import Interval

NO_FIGURES = (f".{READ}", ".curve")
"""Ends of names of measures that are not compared: what was read, and points of drawings."""
CHOSEN = frozenset({"split"})
"""Dimensions of slices whose shares a setting decides."""
LEARNED = "topics."
"""Beginning of measures whose items are learned from the corpus."""
OF_STAGE = "removed."
"""Beginning of measures about the stage that made a corpus, which say nothing about another stage's."""


class Change(NamedTuple):
    """A share of the first corpus minus that of the second."""

    group: str
    """Dimension of the slices (`genre`), or the measure of the item."""
    slice: str
    item: str
    first_value: float | None
    second_value: float | None
    """In `unit`; None if a list of the largest items does not name it."""
    unit: str
    first_share: float
    second_share: float
    change: float
    low: float
    high: float
    """Ends of the 95 % interval of the change."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes no change."""
        return self.low > 0 or self.high < 0

    @property
    def certain(self) -> float:
        """Size of the change at the end of its interval that is nearer to 0; 0 if the interval holds 0."""
        return max(self.low, -self.high, 0.0)

    def as_json(self) -> dict[str, Any]:
        """The row that `--json` prints."""
        return {**self._asdict(), "excludes_zero": self.excludes_zero}


class FigureChange(NamedTuple):
    """A figure of both corpora that is no share, such as an entropy or a quantile."""

    slice: str
    measure: str
    item: str | None
    first_value: float
    second_value: float
    unit: str
    change: float
    low: float | None
    high: float | None
    """Ends of the interval of the change; None if the figures have no stated error."""

    @property
    def relative(self) -> float:
        """Size of the change over the larger of the two values."""
        largest = max(abs(self.first_value), abs(self.second_value))
        return abs(self.change) / largest if largest else 0.0


class NotCompared(NamedTuple):
    """A measure that was not compared."""

    slice: str
    measure: str
    why: str


@dataclass(frozen=True)
class Difference:
    """The first profile against the second."""

    changes: list[Change] = field(default_factory=list)
    """The largest movers first."""
    figures: list[FigureChange] = field(default_factory=list)
    """The largest relative changes first."""
    not_compared: list[NotCompared] = field(default_factory=list)


def difference(
    first: Figures,
    second: Figures,
    slices: Sequence[str] = (),
    *,
    same_stage: bool = True,
    nested: bool = False,
) -> Difference:
    """Compare two profiles of the same settings.

    Args:
        first: figures of the first corpus.
        second: figures of the corpus that it is held against.
        slices: slices whose measures are compared; by default `all`, and with it the shares of the slices themselves.
        same_stage: whether the same stage made both corpora.
        nested: whether all documents of one are documents of the other.

    Raises:
        NotFoundError: if neither profile has a slice.
    """
    known = dict.fromkeys([*first.slices, *second.slices])
    for name in slices:
        if name not in known:
            raise NotFoundError(f"no slice {name!r} in either profile; slices: {_listed(list(known))}")
    found = Difference()
    for name in slices or [ALL]:
        _compare_slice(found, first, second, name, same_stage)
    if not slices:
        found.changes.extend(_slice_changes(found, first, second, nested))
    found.changes.sort(key=lambda row: (-row.certain, -abs(row.change), row.group, row.slice, row.item))
    found.figures.sort(key=lambda row: (-row.relative, row.slice, row.measure, row.item or ""))
    return found


def by_group(changes: Iterable[Change]) -> dict[str, list[Change]]:
    """Changes by group, and slice if there are several, in the order of their largest movers."""
    changes = list(changes)
    slices = {row.slice for row in changes}
    groups: dict[str, list[Change]] = {}
    for row in changes:
        groups.setdefault(row.group if len(slices) == 1 else f"{row.group}, {row.slice}", []).append(row)
    return groups


def largest_movers(changes: Iterable[Change], limit: int) -> list[Change]:
    """The first changes that are not chance; of lengths only those in words, and no n-grams."""
    return [row for row in changes if row.excludes_zero and not row.group.startswith((*FOLDED, "ngrams."))][:limit]


def _listed(names: Sequence[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _compare_slice(found: Difference, first: Figures, second: Figures, name: str, same_stage: bool) -> None:
    dimensions = {known.partition("=")[0] for known in first.slices} if name == ALL else set[str]()
    for measure in dict.fromkeys([*first.measures(name), *second.measures(name)]):
        if measure.endswith(NO_FIGURES) or measure in {f"{dimension}.documents" for dimension in dimensions}:
            continue  # the slices' own shares say the same
        rows, others = first.of_measure(measure, name), second.of_measure(measure, name)
        if measure.endswith(f".{LEFT_OUT}"):
            found.not_compared.append(NotCompared(name, measure, (rows or others)[0].item or ""))
        elif measure.startswith(OF_STAGE) and not same_stage:
            found.not_compared.append(NotCompared(name, measure, "it is about the stage that made the corpus"))
        elif not rows or not others:
            found.not_compared.append(NotCompared(name, measure, f"only the {'first' if rows else 'second'} has it"))
        elif measure.startswith(LEARNED) and {row.item for row in rows} != {row.item for row in others}:
            found.not_compared.append(NotCompared(name, measure, "each profile has learned topics of its own"))
        elif are_parts(rows):
            changes = list(_item_changes(measure, name, Parts.of(first, name, rows), Parts.of(second, name, others)))
            found.changes.extend(changes)
            if not changes:
                found.not_compared.append(NotCompared(name, measure, "the two have no item in common"))
        else:
            found.figures.extend(_figure_changes(rows, others))


def _item_changes(measure: str, name: str, first: Parts, second: Parts) -> Iterator[Change]:
    """A change of each item of either side; none if they have no item in common, as topics of two models."""
    if not first.rows.keys() & second.rows.keys():
        return
    for item in dict.fromkeys([*first.rows, *second.rows]):
        yield _change(measure, name, item, first, second)


def _change(group: str, name: str, item: str, first: Parts, second: Parts) -> Change:
    ours, theirs = first.interval(item), second.interval(item)
    unit = next(iter((first.rows or second.rows).values())).unit
    moved = share_change(ours, theirs)
    return Change(
        group, name, item, first.value(item), second.value(item), unit, ours.value, theirs.value, *moved
    )  # fmt: skip


def _slice_changes(found: Difference, first: Figures, second: Figures, nested: bool) -> Iterator[Change]:
    """Shares of the slices among all documents, dimension by dimension, if both corpora know something of it."""
    names = dict.fromkeys(name for name in [*first.slices, *second.slices] if "=" in name)
    dimensions = dict.fromkeys(name.partition("=")[0] for name in names)
    for dimension in dimensions:
        if dimension not in CHOSEN:
            sides = [dimension_parts(figures, dimension) for figures in (first, second)]
            if not all(side.rows for side in sides):
                only = "first" if sides[0].rows else "second"
                found.not_compared.append(NotCompared(ALL, dimension, f"it is known of the {only} alone"))
                continue
            for item in dict.fromkeys([*sides[0].rows, *sides[1].rows]):
                change = _change(dimension, ALL, item, *sides)
                if item != OTHER:
                    yield _of_nested(change, *sides) if nested else change


def _of_nested(change: Change, first: Parts, second: Parts) -> Change:
    """A change whose interval is that of the share among the documents that only the larger corpus has.

    With R of N documents taken out, the share changes by R / (N - R) times the difference between the share among those
    and the share before; the only random part is which documents were taken.
    """
    larger, smaller = (first, second) if first.whole >= second.whole else (second, first)
    before, after = larger.value(change.item), smaller.value(change.item)
    taken = larger.whole - smaller.whole
    if before is None or after is None or not 0 <= before - after <= taken or taken < 1:
        return change
    among = share_interval((before - after) / taken, taken)
    ends = [(taken / smaller.whole) * (end - before / larger.whole) for end in (among.low, among.high)]
    low, high = ends if larger is first else [-end for end in reversed(ends)]
    # Wilson's interval is not centered: it holds the change in any case.
    return change._replace(low=min(low, change.change), high=max(high, change.change))


def _figure_changes(rows: Sequence[Figure], others: Sequence[Figure]) -> Iterator[FigureChange]:
    by_item = {row.item: row for row in others}
    for row in rows:
        # The item of a single row is a remark, such as the range of a fit.
        other = others[0] if len(rows) == len(others) == 1 else by_item.get(row.item)
        if other is None or not (math.isfinite(row.value) and math.isfinite(other.value)):
            continue
        ends: tuple[float | None, float | None] = (None, None)
        if None not in (row.low, row.high, other.low, other.high):
            sides = [Interval(side.value, side.low or 0.0, side.high or 0.0) for side in (row, other)]
            moved = share_change(*sides)
            ends = (moved.low, moved.high)
        change = row.value - other.value
        yield FigureChange(row.slice, row.measure, row.item, row.value, other.value, row.unit, change, *ends)
