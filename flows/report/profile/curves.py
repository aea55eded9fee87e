"""Drawings of a profile: words by rank and the growth of the vocabulary, both on logarithmic axes.

- `law_panels`: those of some families of measures
- `log_chart`: points and a fitted power law
"""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from flows.console import amount
from flows.report.charts import ACCENT, MUTED, WARM, as_svg, new_axes
from flows.report.drawn_once import drawn_once
from flows.report.profile.figures import Figure, Figures
from flows.report.profile.panels import ChartPanel, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = list[tuple[float, float]]


def law_panels(figures: Figures, families: Sequence[str]) -> list[Panel]:
    """Charts of Zipf's and of Heaps' law, if their figures are among the families'."""
    panels: list[Panel] = []
    points, fitted = _curve(figures, "zipf.curve"), _zipf_fit(figures)
    if "zipf" in families and points:
        title = "Occurrences of a word by its rank"
        panels.append(ChartPanel(title, _note(fitted), log_chart(points, fitted, ("rank", "occurrences"), title)))
    points, fitted = _curve(figures, "heaps.curve"), _heaps_fit(figures)
    if "heaps" in families and (points or fitted):
        title = "Distinct words by words read"
        panels.append(ChartPanel(title, _note(fitted), log_chart(points, fitted, ("words", "distinct words"), title)))
    return panels


def _note(fitted: Points) -> str:
    return "dashed: fitted power law" if fitted else ""


def _curve(figures: Figures, measure: str) -> Points:
    """Points of a measure whose items are positions on the horizontal axis, such as `2000`."""
    points = [(_numbers(row)[:1], row.value) for row in figures.items(measure)]
    return [(x[0], y) for x, y in points if x and x[0] > 0 and y > 0]


def _zipf_fit(figures: Figures) -> Points:
    """The fit over its ranks, through the geometric mean of the points there: a share has no height of its own."""
    row, points = _fit(figures, "zipf.exponent"), _curve(figures, "zipf.curve")
    if row is None or not points:
        return []
    last = max(_numbers(row), default=points[-1][0])
    logs = [math.log(count) + row.value * math.log(rank) for rank, count in points if rank <= last]
    scale = math.exp(math.fsum(logs) / max(1, len(logs)))
    return [(rank, scale * rank**-row.value) for rank in (1.0, last)]


def _heaps_fit(figures: Figures) -> Points:
    row, scale = _fit(figures, "heaps.exponent"), _fit(figures, "heaps.scale")
    if row is None or scale is None or len(_numbers(row)) < 2:
        return []
    return [(words, scale.value * words**row.value) for words in _numbers(row)[:2] if words > 0]


def _fit(figures: Figures, measure: str) -> Figure | None:
    return next(iter(figures.of_measure(measure)), None)


def _numbers(row: Figure) -> list[float]:
    """Whole numbers in the name of an item: `ranks 1-5000`, `2000-200000 words`."""
    return [float(number) for number in re.findall(r"\d+", row.item or "")]


@drawn_once
def log_chart(points: Points, fitted: Points, axis_titles: tuple[str, str], title: str) -> Markup:
    """Measured points, and the fitted law as a dashed line, on two logarithmic axes.

    Args:
        points: measured (x, y), above 0; may be empty if there is a fit.
        fitted: (x, y) at both ends of the fit; empty without one.
        axis_titles: titles of the horizontal and the vertical axis.
        title: text of the chart for screen readers.
    """
    figure, axes = new_axes()
    axes.set_xscale("log")
    axes.set_yscale("log")
    if points:
        axes.plot(*zip(*points, strict=True), color=ACCENT, linewidth=1.8, marker="o", markersize=2.5)
    if fitted:
        axes.plot(*zip(*fitted, strict=True), color=WARM, linewidth=1.4, linestyle=(0, (4, 3)))
    _decades(axes)
    axes.set_xlabel(axis_titles[0], color=MUTED, fontsize=11)
    axes.set_ylabel(axis_titles[1], color=MUTED, fontsize=11)
    return as_svg(figure, title)


def _decades(axes: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=7))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(lambda value, _: amount(value))
