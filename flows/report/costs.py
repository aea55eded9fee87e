"""Cost of the run: seconds and peak memory of each stage, planned and measured, and seconds per phase."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from data_schemas.manifest import Manifest, RunRecord
from flows.console import amount, duration

FAR_OFF = 2.0
"""A measurement further from the plan than this factor is marked."""


@dataclass(frozen=True)
class Compared:
    """A planned and a measured quantity."""

    planned: str
    measured: str
    ratio: str
    far_off: bool


@dataclass(frozen=True)
class StageCost:
    """One stage; a reused one with the figures of the run that made it."""

    stage: str
    reused: bool
    why: str
    made_by: str
    time: Compared
    memory: Compared
    flops: str
    phases: list[tuple[str, str]]
    clock: str
    percent: float
    """Share of the time of all stages."""


def costs(manifests: Mapping[str, Manifest], record: RunRecord) -> list[StageCost]:
    """One row per stage, in order."""
    total = sum(manifest.seconds for manifest in manifests.values())
    return [_cost(stage, manifest, record, total) for stage, manifest in manifests.items()]


def _cost(stage: str, manifest: Manifest, record: RunRecord, total: float) -> StageCost:
    outcome, planned = record.stages[stage], manifest.estimate
    return StageCost(
        stage=stage,
        reused=outcome.action == "reuse",
        why=outcome.why,
        made_by=manifest.attempt,
        time=_compared(planned.seconds if planned else None, manifest.seconds, lambda value: f"{value:,.1f} s"),
        memory=_compared(
            planned.peak_memory_bytes if planned else None,
            manifest.peak_memory_bytes,
            lambda value: amount(value, "B"),
        ),
        flops=amount(planned.flops) if planned and planned.flops else "",
        phases=[(name, duration(seconds)) for name, seconds in manifest.phases.items()],
        clock=duration(manifest.seconds),
        percent=round(100 * manifest.seconds / total, 2) if total else 0.0,
    )


def _compared(planned: float | None, measured: float, write: Callable[[float], str]) -> Compared:
    if not planned:
        return Compared("", write(measured), "", far_off=False)
    ratio = measured / planned
    return Compared(write(planned), write(measured), f"{ratio:.2f}", not 1 / FAR_OFF <= ratio <= FAR_OFF)
