"""The pass that makes activations zero; without torch, as a plan reads it."""

from typing import Literal

from pydantic import Field

from data_schemas.config import FrozenConfig
from stages.compress.recovery_config import Recovery


class SparseActivationsPass(FrozenConfig):
    """Feed-forwards whose activations are mostly zero, and products that skip them (ProSparse, 2402.13516)."""

    kind: Literal["sparse_activations"] = "sparse_activations"
    target_zeros: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="share of each feed-forward's activations that are zero (2402.13516, table 1: 0.89)",
    )
    threshold: float | None = Field(
        None,
        ge=0,
        description="activations up to it are zero (2402.13516, section 3.3, has 0.01); left out: each feed-forward's "
        "own, at which target_zeros is reached on training windows",
    )
    penalty: float = Field(
        1.0,
        ge=0,
        description="largest weight of the mean activation in the loss, in nats at the activations it begins with; "
        "0: thresholds alone",
    )
    threshold_share: float = Field(
        0.4, ge=0, le=1, description="share of the recovery's tokens that come after the thresholds are set"
    )
    calibration_rows: int = Field(32, gt=0, description="training windows that thresholds are chosen on")
    recovery: Recovery = Field(Recovery(), description="training under the penalty, then with the thresholds")
