"""Horizontal bars, drawn by the page itself: sharp at every width, and their text can be read aloud and copied."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """One bar with its label and its figure."""

    label: str
    figure: str
    length: float
    """Per cent of the track."""
    tone: str
    """`network`, `compressed` or `plain`; what the page colors it by."""
    interval: tuple[float, float] | None = None
    """Left end and width of the interval, per cent of the track."""


@dataclass(frozen=True)
class Quantity:
    """What a bar stands for."""

    label: str
    value: float
    figure: str
    tone: str = "plain"
    low: float | None = None
    high: float | None = None


def bars(quantities: Sequence[Quantity]) -> list[Bar]:
    """Bars from zero on one scale, in the order given."""
    longest = max((one.high or one.value for one in quantities), default=0.0) or 1.0
    return [_bar(one, 100 / longest) for one in quantities]


def _bar(one: Quantity, scale: float) -> Bar:
    interval = None
    if one.low is not None and one.high is not None:
        interval = (round(one.low * scale, 2), round((one.high - one.low) * scale, 2))
    return Bar(one.label, one.figure, round(one.value * scale, 2), one.tone, interval)
