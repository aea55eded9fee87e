"""Horizontal bars as HTML: sharp at every width, with text that can be copied and read by a screen reader."""

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
    """Color class of the page: `network`, `compressed` or `plain`."""
    interval: tuple[float, float] | None = None
    """Left end and width of the interval, per cent of the track."""


@dataclass(frozen=True)
class Quantity:
    """The value of a bar, with its interval if it has one."""

    label: str
    value: float
    figure: str
    tone: str = "plain"
    low: float | None = None
    high: float | None = None


def bars(quantities: Sequence[Quantity]) -> list[Bar]:
    """Bars from zero on one scale, in the order of the quantities."""
    longest = max((quantity.high or quantity.value for quantity in quantities), default=0.0) or 1.0
    return [_bar(quantity, 100 / longest) for quantity in quantities]


def _bar(quantity: Quantity, scale: float) -> Bar:
    interval = None
    if quantity.low is not None and quantity.high is not None:
        interval = (round(quantity.low * scale, 2), round((quantity.high - quantity.low) * scale, 2))
    return Bar(quantity.label, quantity.figure, round(quantity.value * scale, 2), quantity.tone, interval)
