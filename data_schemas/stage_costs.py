"""Costs of a stage in one run: planned before it starts, measured when it ends.

- `StageCosts`: the record, `<store>/runs/costs/<number>-<stage>-<key>-<run id>.json`
- `RunPlan`: the plan of a whole run, `<store>/runs/<run id>/plan.json`
- `Measured`: what was measured
"""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from data_schemas.manifest import Estimate, Manifest

FAR_OFF = 1.25
"""A measurement further from the plan than this factor is marked."""


class _Costs(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Measured(_Costs):
    """Costs of a stage that ended with an artifact."""

    seconds: float = Field(ge=0, description="wall time of the try that ended, by a clock that nobody sets")
    peak_memory_bytes: int
    written_bytes: int
    flops: float = Field(0.0, description="floating-point operations of the network; 0: not counted")
    bits_per_byte: float | None = None
    phases: dict[str, float] = Field(description="seconds per named phase")
    incomplete: tuple[str, ...] = Field((), description="reasons why the time is not that of the whole stage")

    @classmethod
    def of(cls, manifest: Manifest, seconds: float) -> "Measured":
        """Costs that a manifest holds, with the seconds of the clock that timed the stage."""
        metrics = manifest.metrics
        bits = [
            row["value"]
            for row in metrics.get("scores", ())
            if (row["metric"], row["model"]) == ("bits per byte", "pretrained")
        ]
        return cls(
            seconds=seconds,
            peak_memory_bytes=manifest.peak_memory_bytes,
            written_bytes=manifest.total_bytes,
            flops=float(metrics.get("flops_per_token", 0.0)) * metrics.get("tokens", 0),
            bits_per_byte=bits[0] if bits else None,
            phases=manifest.phases,
            incomplete=manifest.incomplete,
        )


class StageCosts(_Costs):
    """Plan of a stage, registered before it started, and what was measured."""

    run_id: str
    config_name: str
    stage: str
    key: str
    sequence: int = Field(description="number of the run in its store")
    machine: str = Field(description="kind of machine that computed; empty: others took part")
    processor: str = Field(description="name of the driver's processor")
    started: datetime
    planned: Estimate
    measured: Measured | None = Field(None, description="None: the stage did not end")

    @property
    def name(self) -> str:
        """File name; sorts by run."""
        return f"{self.sequence:08d}-{self.stage}-{self.key[:12]}-{self.run_id}.json"


class RunPlan(_Costs):
    """Plan of the stages of a run that were to run, from before the first of them started."""

    run_id: str
    planned: dict[str, Estimate] = Field(description="by stage; volumes of data that did not exist are predicted")


def is_far_off(planned: float, measured: float) -> bool:
    """Whether a measurement is further from its plan than `FAR_OFF`."""
    return not 1 / FAR_OFF <= measured / planned <= FAR_OFF
