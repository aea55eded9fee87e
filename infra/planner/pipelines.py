"""The pipeline of a layout: its schedule simulated, beside other schedules and the planner's formula.

- `PipelineSimulation`, `simulate_pipeline`: idle shares by schedule, micro-batches whose activations are held
- `pipeline_costs`: seconds of forward pass, gradients and sending from the parts of a planned step
"""

from collections.abc import Mapping
from dataclasses import dataclass

from infra.planner.layouts import Layout
from infra.planner.schedules import ROUNDS, Costs, Schedule, schedule_seconds, simulate
from infra.planner.step_time import ATTENTION_PASSES, FORWARD_BACKWARD

COMPUTED = ("products", "attention", "elementwise", "logits", "recompute", "launches")
MAX_SIZE = 2_048
"""Devices squared times chunks: larger pipelines take more than a second to simulate."""
COMPARED: tuple[Schedule, ...] = ("gpipe", "1f1b", "zero-bubble")


@dataclass(frozen=True)
class PipelineSimulation:
    """Simulated step of a pipeline."""

    schedule: Schedule
    """Schedule that the layout assumes."""
    micro_batches: int
    idle: dict[Schedule, float]
    """Share of a device's time that waits for others or for transfers, by schedule."""
    planned_idle: float
    """The same share by the planner's formulas: bubble, and no transfer hidden."""
    held: float
    """Micro-batches whose activations the first device holds, as multiples of all its layers."""


def schedule_of(layout: Layout) -> Schedule:
    """Schedule that a layout assumes."""
    if layout.virtual > 1:
        return "interleaved"
    return "gpipe" if layout.all_in_flight else "1f1b"


def pipeline_costs(parts: Mapping[str, float], layout: Layout, micro_batches: float) -> Costs:
    """Seconds of a micro-batch on a device.

    Args:
        parts: seconds of a step, as from `step_time`.
        layout: for the number of transfers.
        micro_batches: of the step.
    """
    computed = {name: parts[name] / micro_batches for name in COMPUTED}
    thirds = sum(computed[name] for name in ("products", "elementwise", "logits", "launches")) / FORWARD_BACKWARD
    forward = thirds + computed["attention"] / ATTENTION_PASSES
    weights = (computed["products"] + computed["logits"]) / FORWARD_BACKWARD
    send = parts["pipeline"] / (2 * micro_batches * layout.virtual)
    return Costs(forward, sum(computed.values()) - forward - weights, weights, send)


def simulate_pipeline(parts: Mapping[str, float], layout: Layout, rows: int) -> PipelineSimulation | None:
    """Simulation of a planned step; None without a pipeline, or of one that takes too long to simulate.

    Args:
        parts: seconds of a step, as from `step_time`.
        layout: pipeline devices, chunks per device and micro-batch.
        rows: rows of the global batch.
    """
    if layout.pipeline == 1 or layout.pipeline**2 * layout.virtual > MAX_SIZE:
        return None
    count, own = int(layout.micro_batches(rows)), schedule_of(layout)
    costs = pipeline_costs(parts, layout, count)
    work = costs.total * count
    chunks: dict[Schedule, int] = {**dict.fromkeys(COMPARED, 1), own: layout.virtual}
    idle = {
        schedule: 1 - work / schedule_seconds(schedule, costs, layout.pipeline, count, virtual)
        for schedule, virtual in chunks.items()
    }
    waiting = parts["bubble"] + parts["pipeline"]
    few = min(count, ROUNDS * layout.pipeline)
    held = simulate(own, costs, layout.pipeline, few, layout.virtual).held(0) / layout.virtual
    held = count if own == "gpipe" else held
    return PipelineSimulation(own, count, idle, waiting / (work + waiting), held)
