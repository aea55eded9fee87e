"""`headrace plan --published FILE`: step time and memory of published training runs, predicted and held against them.

- `PublishedPlan`, `plan_published`; `print_published`, `published_json`
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flows.console import console, duration, plain_table
from infra.planner.accelerators import GIB
from infra.planner.published.accuracy import (
    FITTED_BLOCK,
    KINDS,
    MEMORY_INTERVAL,
    TIME_INTERVAL,
    BlockErrors,
    Prediction,
    errors_by_block,
    predict,
)
from infra.planner.published.interpretation import interpret
from infra.planner.published.rows import read_rows


@dataclass(frozen=True)
class PublishedPlan:
    """Predictions of a file's rows."""

    predictions: Sequence[Prediction]
    refused: Sequence[str]
    """A sentence for each row that cannot be predicted."""


def plan_published(path: str) -> PublishedPlan:
    """Predict every row of a CSV file.

    Raises:
        InputDataError: if the file is no table of runs.
    """
    runs = [interpret(row) for row in read_rows(path)]
    return PublishedPlan(
        [predict(run) for run in runs if not isinstance(run, str)], [run for run in runs if isinstance(run, str)]
    )


def print_published(plan: PublishedPlan) -> None:
    """Print a line per row, the rows that cannot be predicted, and the errors by block."""
    table = plain_table(
        ("line", "network", "layout", "step", "interval", "measured", "error", "GiB", "measured ", "error "),
        words=("network", "layout"),
    )
    for row in plan.predictions:
        low, high = (share * row.step_seconds for share in TIME_INTERVAL)
        table.add_row(
            str(row.run.row.line), row.run.row.model[:28], row.run.layout.label()[:60], duration(row.step_seconds),
            f"{duration(low)} to {duration(high)}", _shown(row.measured_seconds, duration),
            _shown(row.time_error_percent, "{:+.1f} %".format), f"{row.memory_bytes / GIB:.1f}",
            _shown(row.measured_memory, lambda memory: f"{memory / GIB:.1f}"),
            _shown(row.memory_error_percent, "{:+.1f} %".format),
        )  # fmt: skip
    console.print(table)
    for sentence in plan.refused:
        console.print(f"not predicted: {sentence}")
    for kind in KINDS:
        _print_errors(kind, errors_by_block(plan.predictions, kind))


def _shown(value: float | None, form: Any) -> str:
    return "" if value is None else str(form(value))


def _print_errors(kind: str, blocks: Sequence[BlockErrors]) -> None:
    if not blocks:
        return
    title = f"{kind} by block"
    table = plain_table((title, "rows", "mean", "largest", "within 15 %", "in the interval"), words=(title,))
    for block in blocks:
        fitted = " (fitted)" if kind == "time" and block.block == FITTED_BLOCK else ""
        table.add_row(
            block.block + fitted, str(block.rows), f"{block.mean:.1f} %", f"{block.largest:.1f} %",
            f"{block.within_15:.0%}", f"{block.covered:.0%}",
        )  # fmt: skip
    console.print()
    console.print(table)


def published_json(plan: PublishedPlan) -> dict[str, Any]:
    """The object that `--json` prints; seconds and bytes, errors in percent (predicted over measured, minus one)."""
    blocks = {kind: errors_by_block(plan.predictions, kind) for kind in KINDS}
    return {
        "rows": [_row_json(row) for row in plan.predictions],
        "refused": list(plan.refused),
        "errors": {kind: [asdict(block) for block in rows] for kind, rows in blocks.items()},
        "fitted_block": FITTED_BLOCK,
        **{f"{kind}_error_percent": rows[-1].mean if rows else None for kind, rows in blocks.items()},
    }


def _row_json(row: Prediction) -> dict[str, Any]:
    return {
        "line": row.run.row.line,
        "model": row.run.row.model,
        "block": row.run.row.block,
        "layout": asdict(row.run.layout),
        "software": row.run.software.name,
        "assumptions": list(row.run.assumptions),
        "parameters": row.run.network.total_parameters,
        "step_seconds": row.step_seconds,
        "step_seconds_interval": [share * row.step_seconds for share in TIME_INTERVAL],
        "measured_step_seconds": row.measured_seconds,
        "time_error_percent": row.time_error_percent,
        "tokens_per_second_per_device": row.run.rows
        * row.run.network.context
        / row.step_seconds
        / row.run.cluster.devices,
        "tflops_per_device": row.model_flops_utilization * row.run.cluster.peak_flops / 1e12,
        "mfu_percent": 100 * row.model_flops_utilization,
        "memory_bytes": row.memory_bytes,
        "memory_gib": row.memory_bytes / GIB,
        "memory_bytes_interval": [share * row.memory_bytes for share in MEMORY_INTERVAL],
        "measured_memory_bytes": row.measured_memory,
        "memory_error_percent": row.memory_error_percent,
        "seconds_by_part": row.seconds,
        "memory_by_part": row.memory,
    }
