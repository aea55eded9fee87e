"""Matrices of a trained network in integers."""

from modeling.gptq import INT4_GROUPS, INT8_ROWS, gptq_network
from modeling.int4_linear import quantize_int4
from modeling.int8_cache import with_int8_cache
from modeling.int8_linear import quantize_int8
from modeling.rebuilding import check_float
from modeling.smoothing import input_ranges, smooth, static_scales
from modeling.transformer import Transformer
from stages.compress.pass_context import PassContext
from stages.compress.quantize_config import Int4Pass, Int8Pass


def apply(one: Int8Pass | Int4Pass, model: Transformer, context: PassContext) -> Transformer:
    """Round every matrix, embedding and head; what an earlier pass set to zero stays zero. `model` may be changed.

    Raises:
        ConfigError: where the network has integers already.
    """
    check_float(model, one.kind)
    model.eval()
    if one.cache == "int8":
        model = with_int8_cache(model)
    return _int8(one, model, context) if isinstance(one, Int8Pass) else _int4(one, model, context)


def _int8(one: Int8Pass, model: Transformer, context: PassContext) -> Transformer:
    """Smoothing first, as it changes what is rounded; static scales last, behind the weights as they then are."""
    if not one.calibrated:
        return quantize_int8(model)
    calibration = context.calibration(model.config.context_length, one.calibration_rows)
    if one.smoothing is not None:
        smooth(model, input_ranges(model, calibration), one.smoothing)
    codes = gptq_network(model, calibration, INT8_ROWS) if one.rounding == "gptq" else {}
    static = one.activations == "static"
    scales = static_scales(model, input_ranges(model, calibration)) if static else {}
    return quantize_int8(model, codes, scales)


def _int4(one: Int4Pass, model: Transformer, context: PassContext) -> Transformer:
    if one.rounding == "nearest":
        return quantize_int4(model)
    calibration = context.calibration(model.config.context_length, one.calibration_rows)
    return quantize_int4(model, gptq_network(model, calibration, INT4_GROUPS))
