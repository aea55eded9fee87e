"""The page of a difference between two profiles: the largest movers as bars from a middle line, then examples.

- `difference_page`: one self-contained HTML file
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.commands.profile.difference import Change, Difference, FigureChange, by_group, largest_movers
from flows.commands.profile.output import interval_of, moved
from flows.commands.profile.taken_out import Share, Taken
from flows.report.bars import Bar, Quantity, bars
from flows.report.headline import Tile
from flows.report.profile.figures import Figures, percent, written
from flows.report.profile.panels import BarPanel, Excerpt, cut
from flows.report.profile.sections import FOLDED
from flows.report.templates import render_template

SHOWN = 12
"""Movers of a group that are open."""
MOST = 100
"""Movers of a group on the page."""
FIGURES = 40


@dataclass(frozen=True)
class Mover:
    """A change as a bar from the middle of its track, which is twice the group's longest reach wide."""

    label: str
    shares: str
    change: str
    interval: str
    left: float
    """Left end of the bar, per cent of the track."""
    width: float
    whisker: tuple[float, float]
    """Left end and width of the interval, per cent of the track."""
    tone: str
    """`network` for more in the first, `compressed` for more in the second, `plain` if the interval holds 0."""


@dataclass(frozen=True)
class Group:
    """Movers of one kind."""

    title: str
    movers: list[Mover]
    more: list[Mover]
    omitted: int


@dataclass(frozen=True)
class Lack:
    """Documents of one corpus that the other lacks."""

    title: str
    summary: str
    panels: list[BarPanel]
    excerpts: list[Excerpt]


def difference_page(
    labels: tuple[str, str],
    profiles: tuple[Figures, Figures],
    found: Difference,
    taken: tuple[Taken, Taken] | None,
    ranking: str,
) -> str:
    """The page.

    Args:
        labels: names of the two corpora.
        profiles: their figures.
        found: the first against the second.
        taken: documents of each that the other lacks; None if the two have none in common.
        ranking: a sentence on the order and the intervals.
    """
    first, second = labels
    sides = ((first, second), (second, first))
    movers = largest_movers(found.changes, SHOWN)
    groups = [_group(title, changes) for title, changes in by_group(found.changes).items()]
    return render_template(
        "profile_difference.html.j2",
        first=first,
        second=second,
        tiles=_tiles(labels, profiles, taken),
        largest=_movers([(f"{row.group}: {row.item}" if row.item else row.group, row) for row in movers]),
        groups=[group for group in groups if not group.title.startswith(FOLDED)],
        folded=[group for group in groups if group.title.startswith(FOLDED)],
        figures=[_figure(row) for row in found.figures[:FIGURES]],
        lacks=[_lack(*names, side) for names, side in zip(sides, taken or (), strict=False)],
        not_compared=found.not_compared,
        ranking=ranking,
    )


def _tiles(labels: tuple[str, str], profiles: tuple[Figures, Figures], taken: tuple[Taken, Taken] | None) -> list[Tile]:
    tiles = []
    for index, (label, figures) in enumerate(zip(labels, profiles, strict=True)):
        note = "documents"
        if taken:
            side = taken[index]
            note += f", {side.missing:,} of which only here{'' if side.rate == 1 else ' (estimated)'}"
        tiles.append(Tile(label, written(figures.documents(), "documents"), note))
    return tiles


def _group(title: str, changes: Sequence[Change]) -> Group:
    movers = _movers([(row.item or row.group, row) for row in changes[:MOST]])
    return Group(title, movers[:SHOWN], movers[SHOWN:], len(changes[MOST:]))


def _movers(rows: Sequence[tuple[str, Change]]) -> list[Mover]:
    """Movers on one scale."""
    reach = max((max(abs(row.low), abs(row.high), abs(row.change)) for _, row in rows), default=0.0) or 1.0
    return [_mover(label, row, 50 / reach) for label, row in rows]


def _mover(label: str, row: Change, scale: float) -> Mover:
    tone = ("network" if row.change > 0 else "compressed") if row.excludes_zero else "plain"
    change, interval = moved(row)
    shares = [
        percent(share) if value is not None else f"at most {percent(share)}"
        for share, value in ((row.first_share, row.first_value), (row.second_share, row.second_value))
    ]
    return Mover(
        cut(label),
        " against ".join(shares),
        change,
        interval,
        round(50 + scale * min(row.change, 0.0), 2),
        round(scale * abs(row.change), 2),
        (round(50 + scale * row.low, 2), round(scale * (row.high - row.low), 2)),
        tone,
    )


def _figure(row: FigureChange) -> tuple[str, str, str, str, str]:
    values = [written(value, row.unit) for value in (row.first_value, row.second_value)]
    name = ", ".join(filter(None, (row.measure, row.item)))
    change = f"{100 * row.relative:.1f} %" if row.change >= 0 else f"−{100 * row.relative:.1f} %"
    return name, values[0], values[1], change, interval_of(row)


def _lack(first: str, second: str, taken: Taken) -> Lack:
    share = percent(taken.missing / taken.documents) if taken.documents else "0 %"
    estimated = "" if taken.rate == 1 else f", estimated from 1 document in {1 / taken.rate:,.0f}"
    panels = [
        BarPanel(f"By {field}", _note(len(values)), _bars(field, values))
        for field, values in taken.by.items()
        if values
    ]
    excerpts = [
        Excerpt(" · ".join(filter(None, (row.genre, row.reason))), row.document_id, row.excerpt)
        for row in taken.examples
    ]
    summary = f"{taken.missing:,} of {taken.documents:,} documents, {share}{estimated}; {second} lacks them."
    return Lack(f"Only in {first}", summary, panels, excerpts)


def _note(count: int) -> str:
    return f"the {SHOWN} largest of {count:,}" if count > SHOWN else ""


def _bars(field: str, values: Mapping[str, Share]) -> list[Bar]:
    return bars(
        [
            Quantity(cut(name), missing, f"{missing:,}" if field == "reason" else f"{missing:,} of {documents:,}")
            for name, (missing, documents) in list(values.items())[:SHOWN]
        ]
    )
