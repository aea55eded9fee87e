"""Figures of a profile, by slice and measure, and how they are written.

- `Figure`: a row of `MEASURES`
- `Figures`: all of them
- `written`, `interval`, `words`: a value, its stated error and a dotted name as text
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import pyarrow as pa

from data_schemas.tables import MEASURES
from flows.console import amount

ALL = "all"
COUNTED = (
    "documents", "words", "characters", "mentions", "tokens", "types", "lines", "groups", "values", "matches", "urls",
    "sentences", "passages",
)  # fmt: skip
"""Units whose values are whole numbers."""


class Figure(NamedTuple):
    """One figure; the fields are the columns of `MEASURES`."""

    slice: str
    measure: str
    item: str | None
    value: float
    low: float | None
    high: float | None
    unit: str
    exact: bool


@dataclass(frozen=True)
class Figures:
    """The figures of a profile in the order of its table."""

    rows: tuple[Figure, ...]

    @classmethod
    def of(cls, measures: pa.Table) -> "Figures":
        """Figures of a table with the schema `MEASURES`."""
        columns = [measures.column(name).to_pylist() for name in MEASURES.names]
        return cls(tuple(map(Figure._make, zip(*columns, strict=True))))

    @cached_property
    def _by_slice(self) -> dict[str, dict[str, list[Figure]]]:
        table: dict[str, dict[str, list[Figure]]] = {}
        for row in self.rows:
            table.setdefault(row.slice, {}).setdefault(row.measure, []).append(row)
        return table

    @property
    def slices(self) -> list[str]:
        """Names of the slices."""
        return list(self._by_slice)

    def measures(self, slice_name: str = ALL) -> list[str]:
        """Names of the measures of a slice."""
        return list(self._by_slice.get(slice_name, ()))

    def of_measure(self, measure: str, slice_name: str = ALL) -> list[Figure]:
        """All figures of a measure in a slice; none if it was not measured."""
        return self._by_slice.get(slice_name, {}).get(measure, [])

    def items(self, measure: str, slice_name: str = ALL) -> list[Figure]:
        """Figures of the items of a measure."""
        return [row for row in self.of_measure(measure, slice_name) if row.item is not None]

    def one(self, measure: str, slice_name: str = ALL, item: str | None = None) -> Figure | None:
        """The figure of a measure or of one of its items; None if it was not measured."""
        return next((row for row in self.of_measure(measure, slice_name) if row.item == item), None)

    def documents(self, slice_name: str = ALL) -> float:
        """Documents of a slice; 0 if they were not counted."""
        row = self.one("documents", slice_name)
        return row.value if row else 0.0


def written(value: float, unit: str) -> str:
    """A value in its unit: `12.3 %`, `1,204`, `5.28 MB`, `9.87`."""
    if value != value:
        return "not defined"
    if unit == "share":
        return percent(value)
    if unit == "bytes":
        return amount(value, "B")
    if unit in COUNTED and abs(value) < 1e7:
        return f"{value:,.0f}"
    return amount(value) if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 0.1 else f"{value:.2f}"


def percent(share: float) -> str:
    """`12.3 %`; small shares with two digits that count, `0.012 %`."""
    digits = 1 if abs(share) >= 0.001 or share == 0 else 3
    return f"{100 * share:.{digits}f} %"


def interval(row: Figure) -> str:
    """` (9.81 – 9.92)` for a stated error that can be seen, else empty."""
    if row.low is None or row.high is None:
        return ""
    low, high = written(row.low, row.unit), written(row.high, row.unit)
    return "" if low == high == written(row.value, row.unit) else f"{low} – {high}"


def words(name: str) -> str:
    """A dotted name in words: `entropy.unigram.miller_madow` -> `unigram, miller madow` without its first part."""
    parts = name.split(".")[1:] or [name]
    return ", ".join(part.replace("_", " ") for part in parts)


def largest(rows: Sequence[Figure], limit: int) -> list[Figure]:
    """The `limit` largest, the first of equal ones first."""
    return sorted(rows, key=lambda row: -row.value)[:limit]
