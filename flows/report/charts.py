"""Figures as inline SVG that follow the page's colours, light or dark.

matplotlib draws in sentinel colours; in the SVG they are replaced by the page's CSS variables.
"""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, BLUE, ORANGE, GREEN, PURPLE = (
    "#010101", "#020202", "#030303", "#040404", "#050505", "#060606", "#070707",
)  # fmt: skip
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--line", BLUE: "--blue", ORANGE: "--orange", GREEN: "--green",
    PURPLE: "--purple",
}  # fmt: skip
SERIES = (BLUE, ORANGE, GREEN, PURPLE, MUTED)


def new_figure(width: float, height: float) -> tuple["Figure", "Axes"]:
    """A figure of so many inches with one set of quiet axes."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "headrace", "font.size": 9})
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    axes.tick_params(colors=MUTED, length=3)
    axes.xaxis.label.set_color(MUTED)
    axes.yaxis.label.set_color(MUTED)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def as_svg(figure: "Figure", title: str) -> str:
    """The figure as an `<svg>` element that scales to its container."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns:xlink="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'role="img" aria-label="{title}"', svg, count=1)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return re.sub(r"font: [^;\"]*'[^;\"]*", _sans, svg)


def _sans(found: "re.Match[str]") -> str:
    size = re.search(r"[\d.]+px", found.group())
    return f"font: {size.group() if size else '9px'} system-ui, sans-serif"


def bars(
    labels: Sequence[str], values: Sequence[float], notes: Sequence[str], colours: Sequence[str], title: str
) -> str:
    """Horizontal bars, the first on top, each with its figure written behind it."""
    figure, axes = new_figure(6.6, 0.36 * len(labels) + 0.35)
    positions = range(len(labels), 0, -1)
    axes.barh(list(positions), values, color=list(colours), height=0.62)
    for position, value, note in zip(positions, values, notes, strict=True):
        axes.text(value + 0.01 * max(values), position, note, va="center", color=INK, fontsize=9)
    axes.set_yticks(list(positions), labels)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xlim(0, 1.3 * max(values))
    axes.xaxis.set_visible(False)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    return as_svg(figure, title)


def line(millions: Sequence[float], values: Sequence[float], title: str) -> str:
    """A curve over millions of tokens."""
    figure, axes = new_figure(4.4, 2.5)
    axes.plot(millions, values, color=BLUE, linewidth=1.6)
    axes.set_xlabel("million tokens")
    axes.margins(x=0.02)
    if "per second" in title:
        axes.set_ylim(bottom=0)  # a rate is read against nothing at all
    return as_svg(figure, title)


def frontier(points: Sequence[dict[str, Any]]) -> str:
    """Bytes on a logarithmic axis against bits per byte, joined in the order of the passes."""
    figure, axes = new_figure(6.6, 2.8)
    sizes = [point["bytes"] / 1e6 for point in points]
    bits = [point["bits_per_byte"] for point in points]
    axes.plot(sizes, bits, color=GRID, linewidth=1.5, zorder=1)
    axes.scatter(sizes, bits, color=[SERIES[number % len(SERIES)] for number in range(len(points))], s=46, zorder=2)
    for point, size, bit in zip(points, sizes, bits, strict=True):
        axes.annotate(point["name"], (size, bit), textcoords="offset points", xytext=(7, 6), color=INK)
    axes.set_xscale("log")
    ticks = sorted({round(size, 1) for size in sizes})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.margins(0.16, 0.25)
    axes.invert_xaxis()
    axes.set_xlabel("megabytes on disk, smaller to the right")
    axes.set_ylabel("bits per byte")
    return as_svg(figure, "Size against bits per byte after each pass")
