"""The page of a scaling law: one self-contained HTML file, pictures first.

- `scaling_page`: the page of a fit
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from flows.console import amount
from flows.report.charts import ACCENT, INK, LINE, MUTED, PLAIN, WARM, as_svg, new_axes, ticks_one_two_five
from flows.report.headline import Tile
from flows.report.templates import render_template
from flows.scaling.fit import ScaledRun, ScalingFit
from infra.planner.scaling_law import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 60
MAX_LABELS = 8
BUDGETS = 4


@dataclass(frozen=True)
class RunRow:
    """A run in a table."""

    name: str
    figures: list[str]


def scaling_page(fit: ScalingFit) -> str:
    """The page, as HTML."""
    return render_template(
        "scaling.html.j2",
        fit=fit,
        tiles=_tiles(fit),
        lengths=_lengths_chart(fit),
        budgets=_budgets_chart(fit),
        runs=[_run_row(fit, run) for run in _sorted(fit)],
        predicted=[
            RunRow(
                f"{row.condition}, seed {row.seed}",
                [f"{row.expected:.4f}", f"{row.low:.4f} to {row.high:.4f}", f"{row.measured:.4f}", _percent(row.error)],
            )
            for row in fit.predicted
        ],
    )


def _tiles(fit: ScalingFit) -> list[Tile]:
    intervals = [
        ("E, bits per byte that remain", fit.bootstrap.interval(lambda law: law.irreducible)),
        ("alpha, of parameters", fit.bootstrap.interval(lambda law: law.parameter_exponent)),
        ("beta, of tokens", fit.bootstrap.interval(lambda law: law.token_exponent)),
    ]
    tiles = [Tile(name, f"{value:.2f}", f"{low:.2f} to {high:.2f}") for name, (value, low, high) in intervals]
    inside = sum(row.is_inside for row in fit.predicted)
    worst = max((abs(row.error) for row in fit.predicted), default=0.0)
    note = f"largest error; {inside} of {len(fit.predicted)} runs inside the interval"
    return [Tile(f"{fit.held_out}, predicted from the other sizes", f"{100 * worst:.1f} %", note), *tiles]


def _run_row(fit: ScalingFit, run: ScaledRun) -> RunRow:
    expected = fit.expected(run.parameters, run.tokens).value
    return RunRow(
        f"{run.variant}, {run.condition}, seed {run.seed}",
        [
            f"{run.parameters:,}", f"{run.tokens:,}", f"{run.flops:.2e}", f"{run.bits_per_byte:.4f}",
            f"{expected:.4f}", _percent(expected / run.bits_per_byte - 1),
        ],
    )  # fmt: skip


def _sorted(fit: ScalingFit) -> list[ScaledRun]:
    return sorted(fit.runs, key=lambda run: (run.parameters, run.tokens, run.seed))


def _percent(share: float) -> str:
    return f"{100 * share:+.2f} %"


def _lengths_chart(fit: ScalingFit) -> Markup:
    """Bits per byte over tokens, a line of the law per size, its runs as points."""
    figure, axes = new_axes()
    runs = _sorted(fit)
    variants = list(dict.fromkeys(run.variant for run in runs))
    lengths = _grid(min(run.tokens for run in runs), max(run.tokens for run in runs))
    for number, variant in enumerate(variants):
        own = [run for run in runs if run.variant == variant]
        color = WARM if variant == fit.held_out else ACCENT
        law = [fit.expected(own[0].parameters, tokens).value for tokens in lengths]
        axes.plot(lengths, law, color=color, linewidth=1.5)
        axes.scatter([run.tokens for run in own], [run.bits_per_byte for run in own], color=color, s=30, zorder=3)
        if len(variants) <= MAX_LABELS or number in (0, len(variants) - 1):
            _label(axes, variant, lengths[-1], law[-1])
    for row, run in zip(fit.predicted, [run for run in fit.runs if run.variant == fit.held_out], strict=True):
        axes.plot([run.tokens] * 2, [row.low, row.high], color=INK, linewidth=1)
        axes.plot([run.tokens], [row.expected], color=INK, marker="_", markersize=9)
    axes.set_xlim(lengths[0] / 1.1, lengths[-1] * (lengths[-1] / lengths[0]) ** 0.2)
    _finish(axes, "tokens")
    return as_svg(figure, "Bits per byte over tokens, by size")


def _budgets_chart(fit: ScalingFit) -> Markup:
    """Expected bits per byte over parameters at equal FLOPs, 6 N D, the best size marked."""
    figure, axes = new_axes()
    flops = [run.flops for run in fit.runs]
    sizes = _grid(min(run.parameters for run in fit.runs), max(run.parameters for run in fit.runs) * 4)
    law = fit.bootstrap.law
    for number, budget in enumerate(np.geomspace(min(flops), max(flops) * fit.max_extrapolation, BUDGETS)):
        tokens = np.array([fit.worth(float(value)) for value in budget / (6 * sizes)])
        losses = law.loss(sizes, tokens)
        best = int(np.argmin(losses))
        beyond = budget > max(flops) * 1.001
        axes.plot(sizes, losses, color=LINE if beyond else PLAIN, linewidth=1.5)
        axes.scatter([sizes[best]], [losses[best]], color=WARM if beyond else ACCENT, s=40, zorder=3)
        _label(axes, f"{budget:.0e}", sizes[-1], float(losses[-1]), muted=number == BUDGETS - 1)
    axes.set_xlim(sizes[0] / 1.1, sizes[-1] * (sizes[-1] / sizes[0]) ** 0.2)
    _finish(axes, "parameters")
    return as_svg(figure, "Expected bits per byte over parameters, by FLOPs")


def _grid(low: float, high: float) -> Floats:
    return np.geomspace(low, max(high, 1.01 * low), POINTS)


def _label(axes: "Axes", text: str, x: float, y: float, muted: bool = False) -> None:
    axes.annotate(
        text, (x, y), xytext=(6, -4), textcoords="offset points", color=MUTED if muted else INK, fontsize=11,
        parse_math=False,
    )  # fmt: skip


def _finish(axes: "Axes", horizontal: str) -> None:
    axes.set_xscale("log")
    ticks_one_two_five(axes)
    axes.xaxis.set_major_formatter(lambda value, _: amount(value))
    axes.set_xlabel(horizontal, color=MUTED, fontsize=11)
    axes.set_ylabel("bits per byte", color=MUTED, fontsize=11)
