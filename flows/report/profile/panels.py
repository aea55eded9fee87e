"""Panels of a profile's page: what one measure, or several that belong together, look like.

- `BarPanel`, `bar_panel`: the items of a measure
- `TablePanel`, `table_panel`: figures without items, with their stated errors
- `ChartPanel`: a drawing
- `MatrixPanel`, `matrix_panel`: documents by two labels
- `ExamplePanel`, `example_panel`: excerpts of documents
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup

from flows.report.bars import Bar, Quantity, bars
from flows.report.profile.figures import Figure, interval, largest, words, written

MAX_ITEM_CHARACTERS = 90
MATRIX_SIZE = 12
ESTIMATED = "estimated"


@dataclass(frozen=True)
class BarPanel:
    """Horizontal bars."""

    kind: ClassVar[str] = "bars"
    title: str
    note: str
    bars: list[Bar]


@dataclass(frozen=True)
class TableRow:
    """A figure with its stated error."""

    name: str
    value: str
    interval: str
    unit: str


@dataclass(frozen=True)
class TablePanel:
    """Figures by name."""

    kind: ClassVar[str] = "table"
    title: str
    note: str
    rows: list[TableRow]


@dataclass(frozen=True)
class ChartPanel:
    """A drawing as SVG."""

    kind: ClassVar[str] = "chart"
    title: str
    note: str
    svg: Markup


@dataclass(frozen=True)
class Cell:
    """Documents with two labels."""

    figure: str
    shade: int
    """Per cent of the row."""
    agrees: bool


@dataclass(frozen=True)
class MatrixPanel:
    """Documents by two labels, a row for each of the first."""

    kind: ClassVar[str] = "matrix"
    title: str
    note: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class Excerpt:
    """Part of a document."""

    label: str
    document_id: str
    text: str


@dataclass(frozen=True)
class ExamplePanel:
    """Excerpts of documents."""

    kind: ClassVar[str] = "examples"
    title: str
    note: str
    excerpts: list[Excerpt]


Panel = BarPanel | TablePanel | ChartPanel | MatrixPanel | ExamplePanel


def bar_panel(
    title: str, rows: Sequence[Figure], limit: int, *, ordered: bool = False, tone: str = "plain"
) -> BarPanel:
    """The items of a measure: the largest first, or in the order of the table if they are buckets."""
    shown = list(rows) if ordered else largest(rows, limit)
    omitted = len(rows) - len(shown)
    notes = [
        "" if rows[0].unit == "share" else rows[0].unit,
        "" if all(row.exact for row in shown) else ESTIMATED,
        f"the {limit} largest of {len(rows):,}" if omitted else "",
    ]
    return BarPanel(title, ", ".join(filter(None, notes)), bars([_quantity(row, tone) for row in shown]))


def _quantity(row: Figure, tone: str) -> Quantity:
    ends = (None, None) if row.low == row.high else (row.low, row.high)
    figure = written(row.value, row.unit)
    return Quantity(cut(row.item or words(row.measure)), max(row.value, 0.0), figure, tone, *ends)


def cut(text: str, characters: int = MAX_ITEM_CHARACTERS) -> str:
    """The text, cut to a number of characters."""
    return text if len(text) <= characters else f"{text[: characters - 1].rstrip()}…"


def table_panel(title: str, rows: Sequence[Figure], *, with_family: bool = False) -> TablePanel:
    """Figures without items, in the order of the table; names begin with the family if there are several."""
    return TablePanel(title, "", [_table_row(row, with_family) for row in rows])


def _table_row(row: Figure, with_family: bool) -> TableRow:
    notes = ["" if row.unit in ("share", "bytes") else row.unit, row.item, "" if row.exact else ESTIMATED]
    name = words(f".{row.measure}" if with_family else row.measure)
    return TableRow(name, written(row.value, row.unit), interval(row), ", ".join(filter(None, notes)))


def matrix_panel(title: str, counts: Mapping[tuple[str, str], float]) -> MatrixPanel:
    """Documents by two labels, the most frequent labels first; shades are shares of a row.

    Args:
        title: title of the panel.
        counts: (label of the row, label of the column) -> amount.
    """
    rows, columns = _labels(counts, 0), _labels(counts, 1)
    omitted = len(rows[MATRIX_SIZE:]) + len(columns[MATRIX_SIZE:])
    cells = [(row, _cells(counts, row, columns[:MATRIX_SIZE])) for row in rows[:MATRIX_SIZE]]
    note = "per cent of a row" + (f"; {omitted} rarer labels are not shown" if omitted else "")
    return MatrixPanel(title, note, columns[:MATRIX_SIZE], cells)


def _labels(counts: Mapping[tuple[str, str], float], axis: int) -> list[str]:
    totals: dict[str, float] = {}
    for key, number in counts.items():
        totals[key[axis]] = totals.get(key[axis], 0.0) + number
    return sorted(totals, key=lambda name: (-totals[name], name))


def _cells(counts: Mapping[tuple[str, str], float], row: str, columns: Sequence[str]) -> list[Cell]:
    total = sum(number for (name, _), number in counts.items() if name == row) or 1.0
    numbers = [(column, counts.get((row, column), 0.0)) for column in columns]
    return [
        Cell(f"{100 * number / total:.0f}" if number else "", round(100 * number / total), column == row)
        for column, number in numbers
    ]


def example_panel(rows: Sequence[Mapping[str, Any]], limit: int) -> ExamplePanel:
    """The first excerpts of a table with the schema `EXAMPLES`."""
    excerpts = [
        Excerpt(cut(" · ".join(filter(None, (words(row["measure"]), row["item"])))), row["document_id"], row["excerpt"])
        for row in rows[:limit]
    ]
    return ExamplePanel("Examples", "", excerpts)
