"""Matrices of a trained network in integers."""

from modeling.compression.gptq import gptq_network
from modeling.compression.integers import quantize_int8, quantize_packed, with_int8_cache
from modeling.compression.quantization_aware_training import QuantizationAwareTraining, weight_grids
from modeling.compression.smooth_quant import input_ranges, smooth, static_scales
from modeling.layers.integer_grid import IntegerGrid
from modeling.replacements import check_float
from modeling.transformer import Transformer
from stages.compress.pass_context import PassContext
from stages.compress.quantize_config import Int8Pass, PackedPass
from stages.compress.recovery import recover
from stages.compress.recovery_config import Recovery
from stages.compress.recovery_loss import recovery_loss


def apply(one: Int8Pass | PackedPass, model: Transformer, context: PassContext) -> Transformer:
    """Round every matrix, embedding and head; what an earlier pass set to zero stays zero. `model` may be changed.

    Raises:
        ConfigError: where the network has integers already.
    """
    check_float(model, one.kind)
    model.eval()
    if one.cache == "int8":
        model = with_int8_cache(model)
    return _int8(one, model, context) if isinstance(one, Int8Pass) else _packed(one, model, context)


def _int8(one: Int8Pass, model: Transformer, context: PassContext) -> Transformer:
    """Smoothing first, as it changes what is rounded; static scales last, behind the weights as they then are."""
    if not one.calibrated:
        return quantize_int8(model)
    calibration = context.calibration(model.config.context_length, one.calibration_rows)
    if one.smoothing is not None:
        smooth(model, input_ranges(model, calibration), one.smoothing)
    codes = gptq_network(model, calibration, IntegerGrid(8)) if one.rounding == "gptq" else {}
    static = one.activations == "static"
    scales = static_scales(model, input_ranges(model, calibration)) if static else {}
    return quantize_int8(model, codes, scales)


def _packed(one: PackedPass, model: Transformer, context: PassContext) -> Transformer:
    grid, table = IntegerGrid(one.bits, one.group), IntegerGrid(8)
    if one.table_bits == 4:
        table = IntegerGrid(4, one.group)
    if one.recovery is not None:
        _train_rounded(model, grid, table, one.recovery, context)
    elif one.rounding == "gptq":
        calibration = context.calibration(model.config.context_length, one.calibration_rows)
        return quantize_packed(model, grid, table, gptq_network(model, calibration, grid))
    return quantize_packed(model, grid, table)


def _train_rounded(
    model: Transformer, grid: IntegerGrid, table: IntegerGrid, recovery: Recovery, context: PassContext
) -> None:
    rounded = QuantizationAwareTraining(model, weight_grids(model, grid, table))
    loss = recovery_loss(recovery, context)
    recover(model, recovery, context, loss, rounded.after_step, beside=rounded.tensors)
    rounded.finish(model)
