"""The compress stage's config; imports no torch, because `headrace plan` reads it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from data_schemas.config import ComputesOn, PrecisionOn, StageConfig, runtime_field
from stages.compress.passes.kinds import CompressionPass, check_order
from stages.compress.passes.prune import PrunePass
from stages.compress.passes.quantize import Int8Pass
from stages.compress.recovery_config import Recovery


class CompressConfig(StageConfig):
    """The passes, their order, and the text that they are measured on."""

    passes: tuple[CompressionPass, ...] = Field((PrunePass(), Int8Pass()), description="in the order they are applied")
    measured_bytes: int = Field(200_000, gt=0, description="held-out text that every pass is measured on, in bytes")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto",
        description="precision of matrix products in recovery training; auto: bf16 if the devices that train have "
        "fast bf16, else fp32",
    )
    seed: int = Field(0, ge=0, description="seed of the data order during recovery training")
    workers: int = runtime_field(
        0,
        ge=0,
        description="Ray Train workers that share the rows of each recovery step; 0 or 1 trains in this process; their "
        "number changes only the order in which numbers are added up",
    )
    max_failures: int = runtime_field(3, ge=0, description="dead workers that are restarted before the attempt fails")
    cpus_per_worker: float = runtime_field(
        1.0, gt=0, description="processors that Ray reserves for each worker if there are no GPUs"
    )

    @property
    def recoveries(self) -> list[Recovery]:
        """Recoveries of the passes that train."""
        recoveries = (getattr(settings, "recovery", None) for settings in self.passes)
        return [recovery for recovery in recoveries if recovery and recovery.tokens]

    @property
    def computes_on(self) -> ComputesOn:
        """Devices that train recoveries."""
        return "workers" if self.workers > 1 else "processor"

    def resolved(self, precision_on: PrecisionOn) -> Self:
        """The config with the precision that `auto` takes if a pass trains; fp32 for fp16, which needs loss scaling."""
        if self.precision != "auto" or not self.recoveries:
            return self
        precision = precision_on(self.computes_on)
        return self.model_copy(update={"precision": "fp32" if precision == "fp16" else precision})

    @model_validator(mode="after")
    def _order_works(self) -> "CompressConfig":
        check_order([settings.kind for settings in self.passes])
        return self
