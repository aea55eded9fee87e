"""Charts as inline SVG in the page's colors, light or dark.

matplotlib draws in sentinel colors, which the SVG replaces with the page's CSS variables. One unit of the SVG is one
CSS pixel at its natural size, so that text stays close to the page's size.

- `Curve`, `curve_chart`: a quantity over training tokens
- `frontier_chart`: size against bits per byte, one labeled point per pass
- `pareto_chart`: a cost against bits per byte of many recipes, with the Pareto frontier
- `new_axes`, `ticks_one_two_five`, `as_svg`: what every chart begins and ends with
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from flows.config.recipes import frontier
from flows.console import amount
from flows.report.drawn_once import drawn_once

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

INK, MUTED, LINE, ACCENT, WARM, PLAIN = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", WARM: "--warm", PLAIN: "--plain",
}  # fmt: skip
WIDTH, HEIGHT = 460, 250
MAX_POINTS = 400
"""Curves with more points are thinned, which bounds the size of the page."""
LABEL_HEIGHT, CHARACTER_WIDTH = 14, 6.5
"""Room of a label, in SVG units; the width is that of a narrow screen's larger text."""


@dataclass(frozen=True)
class Curve:
    """A quantity over training tokens."""

    title: str
    tokens: Sequence[float]
    values: Sequence[float]
    smoothed: bool = False
    """Draw the values faintly, and their moving average over them."""
    from_zero: bool = False
    """Begin the vertical axis at zero, as for rates."""
    restarts: Sequence[float] = ()
    """Tokens at which training resumed from a checkpoint."""


@drawn_once
def curve_chart(curve: Curve) -> Markup:
    """Draw a curve and write its last value beside it."""
    figure, axes = new_axes()
    tokens, values = thinned(curve.tokens), thinned(curve.values)
    for restart in curve.restarts:
        axes.axvline(restart, color=WARM, linewidth=1, linestyle=(0, (3, 3)))
    if curve.smoothed:
        axes.plot(tokens, values, color=ACCENT, linewidth=1, alpha=0.4)
    axes.plot(tokens, moving_average(values) if curve.smoothed else values, color=ACCENT, linewidth=1.8)
    last = (tokens[-1], values[-1])
    axes.plot(*last, color=ACCENT, marker="o", markersize=5)
    axes.annotate(_tick(last[1]), last, xytext=(0, 8), textcoords="offset points", ha="right", color=INK, fontsize=11)
    axes.margins(x=0.02, y=0.1)
    axes.set_xlim(left=0)
    if curve.from_zero:
        axes.set_ylim(0, 1.15 * float(np.nanmax(values)) or 1)
    axes.xaxis.set_major_formatter(lambda value, _: amount(value))
    axes.yaxis.set_major_formatter(lambda value, _: _tick(value))
    axes.set_xlabel("tokens", color=MUTED, fontsize=11)
    return as_svg(figure, curve.title)


@drawn_once
def frontier_chart(names: Sequence[str], sizes: Sequence[float], bits: Sequence[float], title: str) -> Markup:
    """Bytes on a logarithmic axis against bits per byte, joined in the order of the passes."""
    figure, axes = new_axes()
    axes.plot(sizes, bits, color=LINE, linewidth=1.5, zorder=1)
    axes.scatter(sizes[:1], bits[:1], color=MUTED, s=52, zorder=2)
    axes.scatter(sizes[1:], bits[1:], color=WARM, s=52, zorder=2)
    axes.set_xscale("log")
    axes.set_xlim(min(sizes) / 1.5, max(sizes) * 1.5)
    # The axis spans at least five per cent of the values, so that noise does not look like a cliff.
    middle, height = (min(bits) + max(bits)) / 2, max(1.7 * (max(bits) - min(bits)), 0.05 * max(bits))
    axes.set_ylim(middle - height / 2, middle + height / 2)
    _label_points(axes, names, sizes, bits)
    axes.xaxis.set_major_formatter(lambda value, _: amount(value, "B"))
    ticks_one_two_five(axes)
    axes.set_xlabel("bytes on disk", color=MUTED, fontsize=11)
    axes.set_ylabel("bits per byte", color=MUTED, fontsize=11)
    return as_svg(figure, title)


@drawn_once
def pareto_chart(names: Sequence[str], sizes: Sequence[float], bits: Sequence[float], title: str, unit: str) -> Markup:
    """A cost on a logarithmic axis against bits per byte; Pareto-optimal points are joined and labeled.

    Args:
        names: names of the points; the first is the uncompressed model.
        sizes: costs of the points, above 0.
        bits: bits per byte of the points.
        title: text of the chart for screen readers.
        unit: unit of the costs, which also names the axis.
    """
    figure, axes = new_axes()
    best = frontier(list(zip(sizes, bits, strict=True)))
    axes.scatter(sizes, bits, color=PLAIN, s=36, zorder=1)
    axes.plot([sizes[n] for n in best], [bits[n] for n in best], color=WARM, linewidth=1.5, zorder=2)
    axes.scatter([sizes[n] for n in best], [bits[n] for n in best], color=WARM, s=52, zorder=3)
    axes.scatter(sizes[:1], bits[:1], color=MUTED, s=52, zorder=4)
    axes.set_xscale("log")
    axes.set_xlim(min(sizes) / 1.5, max(sizes) * 1.5)
    axes.margins(y=0.2)
    labeled = sorted({0, *best})
    _label_points(axes, [names[n] for n in labeled], [sizes[n] for n in labeled], [bits[n] for n in labeled])
    axes.xaxis.set_major_formatter(lambda value, _: amount(value, unit))
    ticks_one_two_five(axes)
    axes.set_xlabel({"B": "bytes on disk", "BOP": "bit operations per token"}[unit], color=MUTED, fontsize=11)
    axes.set_ylabel("bits per byte", color=MUTED, fontsize=11)
    return as_svg(figure, title)


def thinned(values: Sequence[float]) -> Floats:
    """At most `MAX_POINTS` values: means over consecutive values if there are more."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) <= MAX_POINTS:
        return array
    return np.array([chunk.mean() for chunk in np.array_split(array, MAX_POINTS)])


def moving_average(values: Floats) -> Floats:
    """Mean over a centered window of about three per cent of the values, at least five of them.

    The window is symmetric, grows from one value at the start, where the loss falls steeply, and is cut at the end.
    """
    half = max(2, round(0.015 * len(values)))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    centers = np.arange(len(values))
    reach = np.minimum(half, centers)
    first, end = centers - reach, np.minimum(centers + reach + 1, len(values))
    averages: Floats = (sums[end] - sums[first]) / (end - first)
    return averages


def new_axes() -> tuple["Figure", "Axes"]:
    """Axes of the page's size and colors, without a frame."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
    figure.patch.set_visible(False)
    axes = figure.add_axes((60 / WIDTH, 42 / HEIGHT, (WIDTH - 72) / WIDTH, (HEIGHT - 54) / HEIGHT))
    axes.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.tick_params(colors=MUTED, length=0, pad=6, labelsize=11)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    return figure, axes


def ticks_one_two_five(axes: "Axes") -> None:
    """Ticks of a logarithmic horizontal axis."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = axes.get_xlim()
    steps = (1.0, 2.0, 5.0) if high < 200 * low else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_minor_locator(NullLocator())


def _label_points(axes: "Axes", names: Sequence[str], x: Sequence[float], y: Sequence[float]) -> None:
    """Write each name beside its point: on the side with room, cut to fit, above labels that it would cover."""
    pixels = axes.transData.transform(np.column_stack([x, y]))
    placed: list[tuple[float, float, float]] = []
    for number in np.argsort(pixels[:, 1], kind="stable"):
        center, bottom = float(pixels[number, 0]), float(pixels[number, 1]) - 4
        on_the_left = center > 0.75 * WIDTH or (center > 0.5 * WIDTH and len(names[number]) > _room(WIDTH - center))
        name = _cut(names[number], _room(center if on_the_left else WIDTH - center))
        left = center - 9 - len(name) * CHARACTER_WIDTH if on_the_left else center + 9
        right = left + len(name) * CHARACTER_WIDTH
        while any(left < end and start < right and abs(bottom - level) < LABEL_HEIGHT for start, end, level in placed):
            bottom += 1
        placed.append((left, right, bottom))
        axes.annotate(
            name, (x[number], y[number]), textcoords="offset points",
            xytext=(-9 if on_the_left else 9, bottom - pixels[number, 1]), ha="right" if on_the_left else "left",
            color=INK, fontsize=11, parse_math=False,
        )  # fmt: skip


def _room(width: float) -> int:
    """Characters of a label that fit between its point and the edge of the chart."""
    return int((width - 12) / CHARACTER_WIDTH)


def _cut(name: str, characters: int) -> str:
    return name if len(name) <= characters else f"{name[: characters - 1].rstrip(' ,')}…"


def _tick(value: float) -> str:
    return amount(value) if abs(value) >= 1000 else f"{value:.3g}"


def as_svg(figure: "Figure", title: str) -> Markup:
    """The figure as an `<svg>` element that scales to its container; deterministic."""
    import matplotlib

    buffer = io.StringIO()
    no_metadata = {"Date": None, "Creator": None, "Type": None, "Format": None}
    # The salt keeps ids distinct between the figures of a page, and equal between two renderings.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'role="img" aria-label="{escape(title)}"', svg, count=1)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return Markup(re.sub(r"font-family: [^;\"]*; ", "", svg))
