"""The pass that makes matrices products of thin ones; without torch, as a plan reads it."""

from typing import Literal

from pydantic import Field

from data_schemas.config import FrozenConfig
from stages.compress.recovery_config import Recovery


class LowRankPass(FrozenConfig):
    """Low-rank factors of the decoder's matrices, ranks by one budget for all (SVD-LLM, 2403.07378)."""

    kind: Literal["low_rank"] = "low_rank"
    times_smaller: float = Field(
        5.0,
        gt=1,
        description="parameters of the decoder layers' matrices before over those after; embedding and head stay",
    )
    whitened: bool = Field(
        True, description="the best factors on sample text (2403.07378, section 3.1), or those of the plain SVD"
    )
    calibration_rows: int = Field(
        256, gt=0, description="training windows that inputs are measured on (2403.07378, section 4); only if whitened"
    )
    recovery: Recovery = Field(Recovery(), description="training of the factors")
