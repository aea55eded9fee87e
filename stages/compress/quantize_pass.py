"""Matrices of a trained network in integers."""

from modeling.int8_linear import quantize_int8
from modeling.transformer import Transformer
from stages.compress.pass_context import PassContext
from stages.compress.quantize_config import Int8Pass


def apply(one: Int8Pass, model: Transformer, context: PassContext) -> Transformer:
    """Round every matrix, embedding and head to int8."""
    return quantize_int8(model)
