"""Integers in place of floats; without torch, as a plan reads it."""

from typing import Literal

from pydantic import Field

from data_schemas.config import FrozenConfig
from stages.compress.recovery_config import Recovery

Rounding = Literal["nearest", "gptq"]
CacheType = Literal["float32", "int8"]
CACHE = "keys and values in generation; int8 has a scale per token and head"
ROWS = "training windows that inputs are measured on (2210.17323, section 5)"


class Int8Pass(FrozenConfig):
    """Weights and activations in int8 with integer matrix products, embedding and head too; a row has a scale.

    Calibration text is read where rounding, activations or smoothing ask for it, and by none of the defaults.
    """

    kind: Literal["int8"] = "int8"
    rounding: Rounding = Field(
        "nearest",
        description="of the decoder's weights: to the nearest integer, or so that each makes up for those rounded "
        "before it on calibration text (GPTQ, 2210.17323)",
    )
    activations: Literal["per_token", "static"] = Field(
        "per_token",
        description="a scale for each token, found as it comes, or one for each matrix, measured on calibration text; "
        "skipping feed-forwards and experts that no token reached have per-token scales always",
    )
    smoothing: float | None = Field(
        None,
        ge=0,
        le=1,
        description="alpha of SmoothQuant (2211.10438, section 4, which takes 0.5): the share of the activations' "
        "difficulty that is moved into the weights; none: as they are",
    )
    cache: CacheType = Field("float32", description=CACHE)
    calibration_rows: int = Field(128, gt=0, description=ROWS)

    @property
    def calibrated(self) -> bool:
        """Whether any of the options needs calibration text."""
        return self.rounding == "gptq" or self.activations == "static" or self.smoothing is not None


class PackedPass(FrozenConfig):
    """The decoder's weights in four or two bits with int8 activations, embedding and head in eight or four.

    Two bits want training through the rounding (`recovery`); four do without, and lose less with it.
    """

    kind: Literal["int4", "int2"] = "int4"
    group: int = Field(32, gt=0, multiple_of=32, description="consecutive inputs that share a bfloat16 scale")
    table_bits: Literal[8, 4] = Field(8, description="of embedding and head; eight are as in int8, a scale per row")
    rounding: Rounding = Field(
        "gptq",
        description="to the nearest level, or so that each weight makes up for those rounded before it on calibration "
        "text (GPTQ, 2210.17323); to the nearest after training through the rounding",
    )
    recovery: Recovery | None = Field(
        None,
        description="quantization-aware training (LLM-QAT, 2305.17888): gradients of the rounded network move the "
        "floats behind it; none: only rounded",
    )
    cache: CacheType = Field("float32", description=CACHE)
    calibration_rows: int = Field(128, gt=0, description=ROWS)

    @property
    def bits(self) -> int:
        """Of the decoder's weights."""
        return int(self.kind.removeprefix("int"))
