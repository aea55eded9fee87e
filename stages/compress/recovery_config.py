"""How a network is trained after a pass has changed it; without torch, as a plan reads it."""

from typing import Literal

from pydantic import Field

from data_schemas.config import FrozenConfig
from modeling.training.schedule import ScheduleKind


class Recovery(FrozenConfig):
    """Training of what a pass left."""

    tokens: int = Field(400_000, ge=0, description="training tokens; 0: no recovery")
    batch_tokens: int = Field(8_192, gt=0, description="tokens per step")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="as in pretrain; Muon wants a rate of its own")
    learning_rate: float = Field(3e-4, gt=0, description="the peak")
    schedule: ScheduleKind = Field("cosine", description="of the learning rate, as in pretrain")
    warmup_share: float = Field(0.05, ge=0, lt=1, description="share of the steps that warm up linearly")
    floor_share: float = Field(0.1, ge=0, le=1, description="where the schedule ends, as a share of the peak")
    weight_decay: float = Field(0.0, ge=0, description="on matrices")
    distill: bool = Field(True, description="learn the teacher's predictions as well as the text")
    teacher_weight: float = Field(0.9, ge=0, le=1, description="of the teacher's predictions; the text has the rest")
    temperature: float = Field(1.0, gt=0, description="of the predictions that are compared (Hinton 2015, 1503.02531)")
