"""Cost of the run: planned and measured quantities of each stage, and seconds per phase."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from data_schemas.manifest import Manifest, RunRecord
from data_schemas.stage_costs import Measured, RunPlan, is_far_off
from flows.console import amount, duration


@dataclass(frozen=True)
class Compared:
    """A planned and a measured quantity."""

    name: str
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
    others: list[Compared]
    """FLOPs, bytes written and bits per byte, as far as they are planned."""
    incomplete: str
    """Reasons why its time is compared with no plan."""
    phases: list[tuple[str, str]]
    clock: str
    percent: float
    """Share of the time of all stages."""


def costs(manifests: Mapping[str, Manifest], record: RunRecord) -> list[StageCost]:
    """One row per stage, in order."""
    total = sum(manifest.seconds for manifest in manifests.values())
    return [_cost(stage, manifest, record, total) for stage, manifest in manifests.items()]


def whole_plan(plan: RunPlan | None, manifests: Mapping[str, Manifest], record: RunRecord) -> str:
    """Planned seconds of all stages from before the run, and measured ones of those that ran; empty if not planned."""
    ran = [stage for stage in manifests if plan and stage in plan.planned and record.stages[stage].action == "run"]
    if plan is None or not ran:
        return ""
    planned = sum(plan.planned[stage].seconds for stage in ran)
    seconds = sum(manifests[stage].seconds for stage in ran)
    left = len(plan.planned) - len(ran)
    others = f"; {left} more of the plan did not run" if left else ""
    times = f"{duration(planned)}; they took {duration(seconds)}"
    return f"Before the run started, the plan of the stages that it ran was {times}{others}."


def _cost(stage: str, manifest: Manifest, record: RunRecord, total: float) -> StageCost:
    outcome = record.stages[stage]
    return StageCost(
        stage=stage,
        reused=outcome.action == "reuse",
        why=outcome.why,
        made_by=manifest.attempt,
        time=_time(manifest),
        memory=_compared("memory", _planned(manifest, "peak_memory_bytes"), manifest.peak_memory_bytes, _bytes),
        others=_others(manifest),
        incomplete="; ".join(manifest.incomplete),
        phases=[(name, duration(seconds)) for name, seconds in manifest.phases.items()],
        clock=duration(manifest.seconds),
        percent=round(100 * manifest.seconds / total, 2) if total else 0.0,
    )


def _time(manifest: Manifest) -> Compared:
    """Wall time; that of a part of a stage has no ratio to the plan of the whole."""
    compared = _compared("time", _planned(manifest, "seconds"), manifest.seconds, _seconds)
    if manifest.incomplete:
        return Compared("time", compared.planned, compared.measured, "", far_off=False)
    return compared


def _others(manifest: Manifest) -> list[Compared]:
    measured = Measured.of(manifest, manifest.seconds)
    bits = measured.bits_per_byte or 0.0
    compared = [
        _compared("FLOPs", _planned(manifest, "flops"), measured.flops, amount),
        _compared("bytes written", _planned(manifest, "written_bytes"), measured.written_bytes, _bytes),
        _compared("bits per byte", _planned(manifest, "bits_per_byte"), bits, "{:.3f}".format),
    ]
    return [row for row in compared if row.planned]


def _planned(manifest: Manifest, field: str) -> float:
    return getattr(manifest.estimate, field, None) or 0.0


def _bytes(value: float) -> str:
    return amount(value, "B")


def _seconds(value: float) -> str:
    return f"{value:,.1f} s"


def _compared(name: str, planned: float, measured: float, write: Callable[[float], str]) -> Compared:
    """Both with their ratio; what was not planned, or not measured, has none."""
    if not planned or not measured:
        shown = write(planned) if planned else ""
        return Compared(name, shown, write(measured) if measured else "", "", far_off=False)
    ratio = f"{measured / planned:.2f}"
    return Compared(name, write(planned), write(measured), ratio, is_far_off(planned, measured))
