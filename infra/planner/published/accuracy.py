"""Predictions of published runs, held against what was measured.

- `Prediction`: step time and memory of a row with intervals; `predict`: of an interpreted run
- `measured_step_seconds`: from step time, tokens per second, TFLOP/s, MFU or HFU, in this order
- `BlockErrors`, `errors_by_block`: mean and largest errors
"""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from infra.planner.memory import memory_parts
from infra.planner.published.interpretation import Run
from infra.planner.step_time import FITTED, Constants, step_seconds, step_time

GIB = 2**30
FITTED_BLOCK = "llm-foundry A100-80GB"
"""The block whose rows the constants of `step_time` were fitted on."""
TIME_INTERVAL = (0.80, 1.25)
"""Measured over predicted step time: 5 % and 95 % points of rows with a stated layout, see docs/results/planner.md."""
MEMORY_INTERVAL = (0.85, 1.20)
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


def errors_by_block(predictions: Sequence[Prediction], kind: str = "time") -> list[BlockErrors]:
    """Errors of each block, of the others' rows that state layout and batch, then of all rows but the fitted block's.

    Args:
        predictions: of rows.
        kind: time or memory.
    """
    low, high = TIME_INTERVAL if kind == "time" else MEMORY_INTERVAL
    by_block: dict[str, list[float]] = {}
    stated = []
    for prediction in predictions:
        error = prediction.time_error_percent if kind == "time" else prediction.memory_error_percent
        if error is not None:
            by_block.setdefault(prediction.run.row.block, []).append(error)
            if prediction.run.states_layout and prediction.run.row.block != FITTED_BLOCK:
                stated.append(error)
    others = [error for block, errors in by_block.items() if block != FITTED_BLOCK for error in errors]
    groups = [*by_block.items(), (STATED, stated), ("all others", others)]
    return [_errors(block, errors, low, high) for block, errors in groups if errors]


def _errors(block: str, errors: Sequence[float], low: float, high: float) -> BlockErrors:
    sizes = [abs(error) for error in errors]
    ratios = [1 / (1 + error / 100) for error in errors]
    return BlockErrors(
        block,
        len(errors),
        statistics.fmean(sizes),
        max(sizes),
        sum(size <= 15 for size in sizes) / len(sizes),
        sum(low <= ratio <= high for ratio in ratios) / len(ratios),
    )
