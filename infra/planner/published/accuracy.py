"""Predictions of published runs, held against what was measured.

- `Prediction`: step time and memory of a row with intervals; `predict`: of an interpreted run
- `measured_step_seconds`: from step time, tokens per second, TFLOP/s, MFU or HFU, in this order
- `BlockErrors`, `errors_by_block`: mean and largest errors
- `interval`: of measured over predicted; `held_out_coverage`: of rows whose block did not set it
"""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from infra.planner.accelerators import GIB
from infra.planner.memory import memory_parts
from infra.planner.published.interpretation import Run
from infra.planner.step_time import FITTED, Constants, step_seconds, step_time

Kind = Literal["time", "memory"]
KINDS: tuple[Kind, ...] = ("time", "memory")
FITTED_BLOCK = "llm-foundry A100-80GB"
"""The block whose rows the constants of `step_time` were fitted on."""
TIME_INTERVAL = (0.74, 1.41)
"""Measured over predicted step time: `interval` of all blocks but the fitted one, see docs/results/planner.md."""
MEMORY_INTERVAL = (0.72, 1.54)
TAIL = 0.05
"""Share of the rows beyond each end of an interval."""
STATED = "others that state layout and batch"
COUNTS_RECOMPUTE = r"2104\.04473|2201\.11990|megatron.{0,20}2021|includ\w* (the )?recomput|count.{0,20}recomput"


@dataclass(frozen=True)
class Prediction:
    """Prediction of one row; measured figures are None if the row has none."""

    run: Run
    seconds: dict[str, float]
    memory: dict[str, float]
    measured_seconds: float | None
    measured_memory: float | None
    """Bytes per device."""

    @property
    def step_seconds(self) -> float:
        """Predicted time of a step."""
        return step_seconds(self.seconds)

    @property
    def memory_bytes(self) -> float:
        """Predicted memory of the fullest device."""
        return sum(self.memory.values())

    @property
    def time_error_percent(self) -> float | None:
        """Predicted over measured, minus one."""
        return None if self.measured_seconds is None else 100 * (self.step_seconds / self.measured_seconds - 1)

    @property
    def memory_error_percent(self) -> float | None:
        """Predicted over measured, minus one."""
        return None if self.measured_memory is None else 100 * (self.memory_bytes / self.measured_memory - 1)

    def error_percent(self, kind: Kind) -> float | None:
        """Error of the time or of the memory; None if it was not measured."""
        return self.time_error_percent if kind == "time" else self.memory_error_percent

    @property
    def model_flops_utilization(self) -> float:
        """Model FLOPs per second over the devices' peak, all scores counted."""
        tokens = self.run.rows * self.run.network.context
        rate = tokens * self.run.network.training_flops / self.step_seconds
        return rate / (self.run.cluster.devices * self.run.cluster.peak_flops)


def predict(run: Run, constants: Constants = FITTED) -> Prediction:
    """Step time and memory of a run; nothing of what was measured is used."""
    seconds = step_time(run.network, run.layout, run.cluster, run.software, run.rows, constants)
    memory = memory_parts(run.network, run.layout, run.software, run.rows)
    stated, notes = run.row.get("memory_gib_per_gpu"), run.row.texts["notes"].lower()
    if "calculated" in notes:
        del memory["margin"]
    unit = 1e9 if re.search(r"(in|as) gb\b", notes) else GIB
    return Prediction(run, seconds, memory, measured_step_seconds(run), stated * unit if stated else None)


def measured_step_seconds(run: Run) -> float | None:
    """Seconds of a step as published; None if the row has no figure of speed."""
    row, tokens = run.row, run.rows * run.network.context
    if (seconds := row.get("step_time_s")) is not None:
        return seconds
    devices = run.cluster.devices
    if (rate := row.get("tokens_s_gpu")) is not None:
        return tokens / devices / rate
    if (teraflops := row.get("tflops_per_gpu")) is not None:
        recomputed = 4 / 3 if re.search(COUNTS_RECOMPUTE, _text(run), re.IGNORECASE) else 1.0
        return tokens * run.network.training_flops * recomputed / (devices * teraflops * 1e12)
    if (utilization := row.get("mfu_pct")) is not None:
        return tokens * run.network.training_flops / (devices * run.cluster.peak_flops * utilization / 100)
    if (utilization := row.get("hfu_pct")) is not None:
        recomputed = 4 / 3 if run.layout.recompute == "full" else 1.0
        return tokens * run.network.training_flops * recomputed / (devices * run.cluster.peak_flops * utilization / 100)
    return None


def _text(run: Run) -> str:
    return f"{run.row.texts['source']} {run.row.texts['notes']}"


@dataclass(frozen=True)
class BlockErrors:
    """Absolute errors of a block in percent."""

    block: str
    rows: int
    mean: float
    largest: float
    within_15: float
    """Share of the rows within 15 %."""
    covered: float
    """Share of the rows whose measured figure is in the predicted interval."""


def errors_by_block(predictions: Sequence[Prediction], kind: Kind = "time") -> list[BlockErrors]:
    """Errors of each block, of the others' rows that state layout and batch, then of all rows but the fitted block's.

    Args:
        predictions: of rows.
        kind: time or memory.
    """
    low, high = TIME_INTERVAL if kind == "time" else MEMORY_INTERVAL
    by_block: dict[str, list[float]] = {}
    stated = []
    for prediction in predictions:
        error = prediction.error_percent(kind)
        if error is not None:
            by_block.setdefault(prediction.run.row.block, []).append(error)
            if prediction.run.states_layout and prediction.run.row.block != FITTED_BLOCK:
                stated.append(error)
    others = [error for block, errors in by_block.items() if block != FITTED_BLOCK for error in errors]
    groups = [*by_block.items(), (STATED, stated), ("all others", others)]
    return [_errors(block, errors, low, high) for block, errors in groups if errors]


def _ratio(error: float) -> float:
    """Measured over predicted, by an error in percent."""
    return 1 / (1 + error / 100) if error > -100 else float("inf")


def _errors(block: str, errors: Sequence[float], low: float, high: float) -> BlockErrors:
    sizes = [abs(error) for error in errors]
    ratios = [_ratio(error) for error in errors]
    return BlockErrors(
        block,
        len(errors),
        statistics.fmean(sizes),
        max(sizes),
        sum(size <= 15 for size in sizes) / len(sizes),
        sum(low <= ratio <= high for ratio in ratios) / len(ratios),
    )


def interval(blocks: Sequence[Sequence[float]]) -> tuple[float, float]:
    """5 % and 95 % points of measured over predicted; with rows or blocks of equal weight, whichever is wider.

    Rows of one source err alike, and the next row may be of another.

    Args:
        blocks: ratios of each block's rows.
    """
    by_row = sorted((ratio, 1.0) for ratios in blocks for ratio in ratios)
    by_block = sorted((ratio, 1 / len(ratios)) for ratios in blocks for ratio in ratios)
    lows, highs = zip(*((_point(rows, TAIL), _point(rows, 1 - TAIL)) for rows in (by_row, by_block)), strict=True)
    return min(lows), max(highs)


def _point(rows: Sequence[tuple[float, float]], share: float) -> float:
    """The first of the ascending (ratio, weight) at which the sum of weights reaches a share of all."""
    sums = list(accumulate(weight for _, weight in rows))
    return next(ratio for (ratio, _), total in zip(rows, sums, strict=True) if total >= share * sums[-1])


def held_out_coverage(predictions: Sequence[Prediction], kind: Kind = "time") -> tuple[float, float]:
    """Shares in the `interval` of all other blocks: of the rows, and the mean over the blocks.

    Args:
        predictions: of rows; those of the fitted block are left out.
        kind: time or memory.
    """
    blocks = ratios_by_block(predictions, kind)
    covered = []
    for block, ratios in blocks.items():
        low, high = interval([others for name, others in blocks.items() if name != block])
        covered.append((len(ratios), sum(low <= ratio <= high for ratio in ratios)))
    rows = sum(count for count, _ in covered)
    return sum(inside for _, inside in covered) / rows, statistics.fmean(inside / count for count, inside in covered)


def ratios_by_block(predictions: Sequence[Prediction], kind: Kind) -> dict[str, list[float]]:
    """Measured over predicted of each block but the fitted one."""
    blocks: dict[str, list[float]] = {}
    for prediction in predictions:
        error = prediction.error_percent(kind)
        if error is not None and prediction.run.row.block != FITTED_BLOCK:
            blocks.setdefault(prediction.run.row.block, []).append(_ratio(error))
    return blocks
