"""Settings of the training after a pass has changed a network; no torch, because `headrace plan` reads them."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from data_schemas.config import FrozenConfig
from modeling.training.schedule import ScheduleKind


@dataclass(frozen=True)
class RecoveryPlan:
    """A recovery's size in training windows and optimizer steps."""

    rows: int
    """Training windows per step."""
    steps: int

    @property
    def all_rows(self) -> int:
        """Training windows of all steps together."""
        return self.rows * self.steps


class Recovery(FrozenConfig):
    """Training of the network that a pass leaves."""

    tokens: int = Field(400_000, ge=0, description="training tokens; 0: no recovery")
    batch_tokens: int = Field(8_192, gt=0, description="tokens per step")
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="as in pretrain; Muon needs another learning rate than AdamW"
    )
    learning_rate: float = Field(3e-4, gt=0, description="peak of the schedule")
    schedule: ScheduleKind = Field("cosine", description="shape of the learning rate, as in pretrain")
    warmup_share: float = Field(0.05, ge=0, lt=1, description="share of the steps that warm up linearly")
    floor_share: float = Field(0.1, ge=0, le=1, description="final learning rate as a share of the peak")
    weight_decay: float = Field(0.0, ge=0, description="applied to matrices")
    distill: bool = Field(True, description="learn the teacher's predictions as well as the text")
    teacher_weight: float = Field(
        0.9,
        ge=0,
        le=1,
        description="weight of the teacher's predictions in the loss; the text has the remaining weight",
    )
    temperature: float = Field(
        1.0, gt=0, description="temperature of the predictions that are compared (Hinton 2015, 1503.02531)"
    )

    def plan(self, context_length: int) -> RecoveryPlan:
        """Rows and steps for windows of `context_length` tokens; tokens that do not fill a step are not used."""
        rows = max(1, self.batch_tokens // context_length)
        return RecoveryPlan(rows, self.tokens // (rows * context_length))
