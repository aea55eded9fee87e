"""Quantization: int8 weights and activations, or weights packed in four or two bits."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from data_schemas.config import FrozenConfig
from stages.compress.recovery_config import Recovery

if TYPE_CHECKING:
    from modeling.layers.integer_grid import IntegerGrid
    from modeling.transformer import Transformer
    from stages.compress.pass_context import PassContext

Rounding = Literal["nearest", "gptq"]
CacheType = Literal["float32", "int8"]
CACHE_DESCRIPTION = (
    "keys and values in generation; int8 has a scale per token and head, and full attention multiplies integers"
)
ROWS_DESCRIPTION = "training windows that inputs are measured on (2210.17323, section 5)"


class Int8Pass(FrozenConfig):
    """Weights and activations in int8 with integer matrix products, embedding and head too; a scale per row.

    Calibration text is read only for `rounding: gptq`, `activations: static` and `smoothing`, not by default.
    """

    kind: Literal["int8"] = "int8"
    rounding: Rounding = Field(
        "nearest",
        description="rounding of the decoder's weights: to the nearest integer, or so that each weight compensates for "
        "those rounded before it on calibration text (GPTQ, 2210.17323)",
    )
    activations: Literal["per_token", "static"] = Field(
        "per_token",
        description="a scale for each token, computed at run time, or one for each matrix, measured on calibration "
        "text; feed-forwards that skip zeros, and experts that no token reached, always have per-token scales",
    )
    smoothing: float | None = Field(
        None,
        ge=0,
        le=1,
        description="alpha of SmoothQuant (2211.10438, section 4, which takes 0.5): the share of the activations' "
        "difficulty that is moved into the weights; none: no smoothing",
    )
    cache: CacheType = Field("float32", description=CACHE_DESCRIPTION)
    calibration_rows: int = Field(128, gt=0, description=ROWS_DESCRIPTION)

    @property
    def calibrated(self) -> bool:
        """Whether any of the options needs calibration text."""
        return self.rounding == "gptq" or self.activations == "static" or self.smoothing is not None

    def apply(self, model: "Transformer", context: "PassContext") -> "Transformer":
        """Quantize every matrix, embedding and head; zeros of an earlier pass stay zeros. `model` may be changed.

        Smoothing comes first, as it changes the weights that are rounded; static scales are measured last, on the
        smoothed and rounded weights.

        Raises:
            ConfigError: if the network has integers already.
        """
        from modeling.compression.gptq import gptq_network
        from modeling.compression.integers import quantize_int8
        from modeling.compression.smooth_quant import input_ranges, smooth, static_scales
        from modeling.layers.integer_grid import IntegerGrid

        model = _with_cache(self, model)
        if not self.calibrated:
            return quantize_int8(model)
        calibration = context.calibration(model.config.context_length, self.calibration_rows)
        if self.smoothing is not None:
            smooth(model, input_ranges(model, calibration), self.smoothing)
        codes = gptq_network(model, calibration, IntegerGrid(8)) if self.rounding == "gptq" else {}
        static = self.activations == "static"
        scales = static_scales(model, input_ranges(model, calibration)) if static else {}
        return quantize_int8(model, codes, scales)


class PackedPass(FrozenConfig):
    """The decoder's weights in four or two bits with int8 activations, embedding and head in eight or four.

    Two bits need quantization-aware training (`recovery`); four do without it, and lose less with it.
    """

    kind: Literal["int4", "int2"] = "int4"
    group: int = Field(32, gt=0, multiple_of=32, description="consecutive inputs that share a bfloat16 scale")
    table_bits: Literal[8, 4] = Field(
        8, description="bits of embedding and head; eight are as in int8, with a scale per row"
    )
    rounding: Rounding = Field(
        "gptq",
        description="to the nearest level, or so that each weight compensates for those rounded before it on "
        "calibration text (GPTQ, 2210.17323); always to the nearest after quantization-aware training",
    )
    recovery: Recovery | None = Field(
        None,
        description="quantization-aware training (LLM-QAT, 2305.17888): gradients of the quantized network update the "
        "float weights that it is rounded from; none: rounding only",
    )
    cache: CacheType = Field("float32", description=CACHE_DESCRIPTION)
    calibration_rows: int = Field(128, gt=0, description=ROWS_DESCRIPTION)

    @property
    def bits(self) -> int:
        """Bits per weight of the decoder."""
        return int(self.kind.removeprefix("int"))

    def apply(self, model: "Transformer", context: "PassContext") -> "Transformer":
        """Quantize every matrix, embedding and head; zeros of an earlier pass stay zeros. `model` may be changed.

        Raises:
            ConfigError: if the network has integers already.
        """
        from modeling.compression.gptq import gptq_network
        from modeling.compression.integers import quantize_packed
        from modeling.layers.integer_grid import IntegerGrid

        model = _with_cache(self, model)
        grid, table = IntegerGrid(self.bits, self.group), IntegerGrid(8)
        if self.table_bits == 4:
            table = IntegerGrid(4, self.group)
        if self.recovery is not None:
            _train_quantized(model, grid, table, self.recovery, context)
        elif self.rounding == "gptq":
            calibration = context.calibration(model.config.context_length, self.calibration_rows)
            return quantize_packed(model, grid, table, gptq_network(model, calibration, grid))
        return quantize_packed(model, grid, table)


def _with_cache(settings: Int8Pass | PackedPass, model: "Transformer") -> "Transformer":
    """The float network in evaluation mode, with the pass's type of cache."""
    from modeling.compression.integers import with_int8_cache
    from modeling.replacements import check_float

    check_float(model, settings.kind)
    model.eval()
    return with_int8_cache(model) if settings.cache == "int8" else model


def _train_quantized(
    model: "Transformer", grid: "IntegerGrid", table: "IntegerGrid", recovery: Recovery, context: "PassContext"
) -> None:
    from modeling.compression.quantization_aware_training import QuantizationAwareTraining, weight_grids
    from stages.compress.recovery import recover, recovery_loss

    training = QuantizationAwareTraining(model, weight_grids(model, grid, table))
    loss_of = recovery_loss(recovery, context)
    recover(model, recovery, context, loss_of, training.after_step, extra_tensors=training.tensors)
    training.finish(model)
