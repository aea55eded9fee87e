"""Stacked bars of a plan: one bar a layout, one color a part, on one scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

COLORS = ("s5", "s7", "s1", "s6", "s9", "s8", "s3", "s2", "s4")
"""Colors of the page's style, those that differ most first."""
OTHERS = "others"


@dataclass(frozen=True)
class Piece:
    """Colored piece of a bar."""

    color: str
    """Class of the page, one of `COLORS`."""
    length: float
    """Per cent of the track."""
    title: str
    """Text that appears at the pointer."""


@dataclass(frozen=True)
class Stack:
    """One bar."""

    label: str
    figure: str
    pieces: list[Piece]


@dataclass(frozen=True)
class Stacks:
    """Bars on one scale, with their legend."""

    rows: list[Stack]
    legend: list[tuple[str, str]]
    """(color, part), the largest first."""
    mark: float | None
    """Position of the limit, per cent of the track; None without one."""


def stacks(
    rows: Sequence[tuple[str, str, Mapping[str, float]]], unit: str, divisor: float, limit: float | None = None
) -> Stacks:
    """Bars from (label, figure, value by part).

    Args:
        rows: in the order of the page; a part that takes no share of any bar has no color.
        unit: of the figures at the pointer.
        divisor: value of one unit, such as 2^30 bytes for GiB.
        limit: a value to mark on every bar, such as the memory of a device.
    """
    longest = max([limit or 0.0, *(sum(parts.values()) for _, _, parts in rows)]) or 1.0
    names = _largest([parts for _, _, parts in rows])
    colors = dict(zip(names, COLORS, strict=False))
    drawn = []
    for label, figure, parts in rows:
        values = {name: sum(parts[part] for part in _parts_of(name, names, parts)) for name in names}
        pieces = [
            Piece(colors[name], round(100 * value / longest, 2), f"{name} {value / divisor:.3g} {unit}")
            for name, value in values.items()
            if value > 0
        ]
        drawn.append(Stack(label, figure, pieces))
    mark = None if limit is None else round(100 * limit / longest, 2)
    return Stacks(drawn, [(colors[name], name) for name in names], mark)


def _largest(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Parts by their largest value, the smallest of too many together."""
    largest: dict[str, float] = {}
    for parts in rows:
        for name, value in parts.items():
            largest[name] = max(largest.get(name, 0.0), value)
    names = [name for name in sorted(largest, key=lambda name: -largest[name]) if largest[name] > 0]
    return names if len(names) <= len(COLORS) else [*names[: len(COLORS) - 1], OTHERS]


def _parts_of(name: str, names: Sequence[str], parts: Mapping[str, float]) -> list[str]:
    if name != OTHERS:
        return [name] if name in parts else []
    return [part for part in parts if part not in names]
