"""Text and JSON of `headrace profile`.

- `print_profile`, `profile_json`: the main figures of one profile
- `print_difference`, `difference_json`: one against another
"""

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from flows.commands.profile.corpora import Profiled
from flows.commands.profile.difference import Change, Difference, FigureChange, by_group, largest_movers
from flows.commands.profile.taken_out import Taken
from flows.console import console
from flows.report.profile.figures import ALL, Figures, interval, percent, written
from flows.report.profile.panels import cut
from flows.report.profile.sections import FOLDED, left_out

LARGEST = 8
"""Slices of a dimension that are named."""
MOVERS = 6
"""Movers of a group that are printed; `--json` and the page have all."""
FIGURES = 10
PRINTED_EXAMPLES = 6
CELL = 44
REASON = 300
EXCERPT = 100


def print_profile(profiled: Profiled, figures: Figures, page: str) -> None:
    """Figures of the whole corpus, the largest slices, what was left out, and the page's path."""
    console.print(f"profile of {plain(profiled.label)}", style="bold")
    table = _table("", "value", "stated error", "unit")
    for measure in figures.measures():
        rows = figures.of_measure(measure)
        if len(rows) == 1 and not measure.startswith(("length.characters", "length.bytes", "vocabulary.trigram")):
            row = rows[0]
            unit = row.unit if row.exact else f"{row.unit}, estimated".strip(", ")
            table.add_row(measure, written(row.value, row.unit), interval(row), unit)
    console.print(table if table.rows else "no figures")
    for dimension, shares in _shares(figures).items():
        named = ", ".join(f"{plain(name)} {percent(share)}" for name, share in shares[:LARGEST])
        more = f" and {len(shares) - LARGEST} more" if len(shares) > LARGEST else ""
        console.print(f"{dimension}: {named}{more}")
    for title, reason in left_out(figures):
        console.print(f"not in this profile: {title} ({plain(reason, REASON)})")
    console.print(f"page: {page}")


def profile_json(profiled: Profiled, figures: Figures, page: str) -> dict[str, Any]:
    """The object that `--json` prints: all figures of the whole corpus, and the documents of each slice."""
    return {
        **_side(profiled),
        "page": page,
        "figures": [row._asdict() for row in figures.rows if row.slice == ALL],
        "slices": {name: figures.documents(name) for name in figures.slices if name != ALL},
        "left_out": dict(left_out(figures)),
    }


def print_difference(
    sides: tuple[Profiled, Profiled], found: Difference, taken: tuple[Taken, Taken] | None, page: str | None
) -> None:
    """The largest movers of each group, figures, documents that one side lacks, and the page's path."""
    first, second = (plain(side.label) for side in sides)
    console.print(f"{first} (first), against {second} (second)", style="bold")
    if movers := largest_movers(found.changes, LARGEST):
        console.print("\nlargest movers", style="bold")
        console.print(_movers((f"{row.group}: {row.item}" if row.item else row.group, row) for row in movers))
    unchanged = []
    for group, changes in by_group(found.changes).items():
        moving = [row for row in changes if row.change][:MOVERS]
        if not moving:
            unchanged.append(plain(group))
        elif not group.startswith(FOLDED):
            console.print(f"\n{plain(group)}", style="bold")
            console.print(_movers((row.item or row.group, row) for row in moving))
    if unchanged:
        console.print(f"\nwithout any change: {', '.join(unchanged)}")
    if found.figures:
        table = _table("figure", "first", "second", "change", "interval")
        for figure in [row for row in found.figures if not row.measure.startswith(FOLDED)][:FIGURES]:
            values = [written(value, figure.unit) for value in (figure.first_value, figure.second_value)]
            name = ", ".join(filter(None, (figure.measure, figure.item)))
            ends = interval_of(figure)
            table.add_row(plain(name), *values, f"{figure.change:+.3g}", ends)
        console.print()
        console.print(table)
    if taken is None:
        console.print("\nno document is in both, or a corpus is gone from the store: no documents are compared")
    else:
        _print_taken(first, taken[0])
        _print_taken(second, taken[1])
    for missing in found.not_compared:
        console.print(f"not compared: {plain(missing.slice)}, {missing.measure}: {plain(missing.why)}")
    console.print(RANKING)
    if page:
        console.print(f"page: {page}")


RANKING = (
    "ranked by the end of the 95 % interval that is nearer to 0; if one corpus is a part of the other, intervals of "
    "shares of slices take the documents taken out for a sample; all others take the two for independent samples of "
    "documents, or of words for words and names: too wide for a part, and too narrow where a document repeats a word"
)


def difference_json(
    sides: tuple[Profiled, Profiled], found: Difference, taken: tuple[Taken, Taken] | None, page: str | None
) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {
        "first": _side(sides[0]),
        "second": _side(sides[1]),
        "ranking": RANKING,
        "changes": [row.as_json() for row in found.changes],
        "figures": [row._asdict() for row in found.figures],
        "not_compared": [row._asdict() for row in found.not_compared],
        "only_in_first": taken[0].as_json() if taken else None,
        "only_in_second": taken[1].as_json() if taken else None,
        "page": page,
    }


def interval_of(figure: FigureChange) -> str:
    """The interval of a figure's change; empty without one."""
    if figure.low is None or figure.high is None or figure.low == figure.high:
        return ""
    return f"{figure.low:+.3g} to {figure.high:+.3g}"


def plain(text: str, limit: int = CELL) -> str:
    """A text on one line without control characters, which could move the cursor or reverse what follows."""
    return cut(" ".join("".join(char if char.isprintable() else " " for char in text).split()), limit)


def moved(row: Change) -> tuple[str, str]:
    """A change and its interval, in percentage points."""
    digits = 2 if max(abs(row.low), abs(row.high)) >= 0.0005 else 4
    low, high = (f"{100 * end:+.{digits}f}" for end in (row.low, row.high))
    return f"{100 * row.change:+.{digits}f} pp", f"{low} to {high}"


def _print_taken(side: str, taken: Taken) -> None:
    about = "" if taken.rate == 1 else f", estimated from 1 in {1 / taken.rate:,.0f}"
    share = percent(taken.missing / taken.documents) if taken.documents else "0 %"
    console.print(f"\nonly in {side}: {taken.missing:,} of {taken.documents:,} documents, {share}{about}")
    for field, values in taken.by.items():
        if values:
            named = [f"{plain(name)} {row.missing:,} of {row.documents:,}" for name, row in values.items()]
            more = f" and {len(named) - MOVERS} more" if len(named) > MOVERS else ""
            console.print(f"  {field}: {', '.join(named[:MOVERS])}{more}")
    for example in taken.examples[:PRINTED_EXAMPLES]:
        why = "" if example.reason == "not known" else f" ({plain(example.reason)})"
        console.print(f"  {plain(example.document_id, 80)}{why}: {plain(example.excerpt, EXCERPT)}")


def _movers(rows: Iterable[tuple[str, Change]]) -> Table:
    table = _table("", "first", "second", "change", "95 % interval")
    for label, row in rows:
        shares = [
            percent(share) if value is not None else f"≤ {percent(share)}"
            for share, value in ((row.first_share, row.first_value), (row.second_share, row.second_value))
        ]
        table.add_row(plain(label), *shares, *moved(row))
    return table


def _side(profiled: Profiled) -> dict[str, Any]:
    return {
        "label": profiled.label,
        "profile": profiled.profile.ref.label,
        "corpus": profiled.corpus.ref.label if profiled.corpus else None,
        "run_id": profiled.run_id,
    }


def _shares(figures: Figures) -> dict[str, list[tuple[str, float]]]:
    whole, shares = figures.documents() or 1.0, dict[str, list[tuple[str, float]]]()
    for name in sorted(figures.slices, key=lambda name: -figures.documents(name)):
        dimension, separator, value = name.partition("=")
        if separator:
            shares.setdefault(dimension, []).append((value, figures.documents(name) / whole))
    return shares


def _table(*titles: str) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if 0 < number < 3 else "left")
    return table
