"""A small network of each kind that compression leaves, made without training."""

from collections.abc import Callable

import torch

from modeling.attention.linear_attention import LinearAttention
from modeling.attention.lsh_attention import LshAttention
from modeling.compression.activation_sparsity import feed_forwards, use_sparse_feed_forwards
from modeling.compression.attention_transfer import share_query_key
from modeling.compression.gptq import gptq_network
from modeling.compression.integers import quantize_int8, quantize_packed, with_int8_cache
from modeling.compression.low_rank import factorize
from modeling.compression.pruning import prune
from modeling.compression.smooth_quant import input_ranges, smooth, static_scales
from modeling.compression.structured_pruning import keep_heads_and_neurons, remove_heads_and_neurons, remove_layers
from modeling.distillation.student import student_from
from modeling.distillation.student_config import student_config
from modeling.layers.integer_grid import IntegerGrid
from modeling.layers.sparse_feed_forward import SparseFeedForward
from modeling.transformer import Transformer
from tests.modeling.networks import random_tokens

TEXT = random_tokens(4, 24, seed=7)
"""What the builders measure on."""


def _distilled(model: Transformer) -> Transformer:
    return student_from(model, student_config(model.config, layers=1, width=16), TEXT)


def _pruned(model: Transformer) -> Transformer:
    prune(model, 0.5, "magnitude")
    return model


def _of_unequal_layers(model: Transformer) -> Transformer:
    return keep_heads_and_neurons(model, {}, {"layers.1.feed_forward": range(9)})


def _with_linear_attention(model: Transformer) -> Transformer:
    attention, config = model.layers[1].attention, model.config
    model.layers[1].attention = LinearAttention.from_attention(attention, config.width, config.heads, 8)
    return model


def _with_lsh_attention(model: Transformer) -> Transformer:
    for number, layer in enumerate(model.layers):
        given, config = layer.attention, model.config
        made = LshAttention(config.width, config.heads, given.head_width, 2, 4, 6, number, given.scale)
        share_query_key(given, made)
        layer.attention = made.eval()
    return model


def _with_sparse_activations(model: Transformer) -> Transformer:
    use_sparse_feed_forwards(model)
    for one in feed_forwards(model).values():
        assert isinstance(one, SparseFeedForward)
        one.threshold = 0.3
    return model


def _low_rank(model: Transformer) -> Transformer:
    return factorize(model, 2.0, TEXT)


def _static_int8(model: Transformer) -> Transformer:
    return quantize_int8(model, input_scales=static_scales(model, input_ranges(model, TEXT)))


@torch.no_grad()
def _int8_with_everything(model: Transformer) -> Transformer:
    model = with_int8_cache(model)
    smooth(model, input_ranges(model, TEXT))
    return quantize_int8(model, gptq_network(model, TEXT, IntegerGrid(8)))


def _packed(bits: int, table_bits: int) -> Callable[[Transformer], Transformer]:
    return lambda model: quantize_packed(model, IntegerGrid(bits, 32), IntegerGrid(table_bits, 32))


COMPRESSIONS: dict[str, Callable[[Transformer], Transformer]] = {
    "distill": _distilled,
    "layers removed": lambda model: remove_layers(model, 0.5, TEXT),
    "neurons removed": lambda model: remove_heads_and_neurons(model, 1.0, 0.5, TEXT),
    "prune": _pruned,
    "heads removed": lambda model: remove_heads_and_neurons(model, 0.5, 1.0, TEXT),
    "unequal layers": _of_unequal_layers,
    "low_rank": _low_rank,
    "sparse_activations": _with_sparse_activations,
    "int8": quantize_int8,
    "int8, static": _static_int8,
    "int8, gptq, smoothing, cache": _int8_with_everything,
    "low_rank, sparse_activations, prune, int8": lambda model: quantize_int8(
        _pruned(_with_sparse_activations(_low_rank(model)))
    ),
    "linear_attention": _with_linear_attention,
    "lsh_attention": _with_lsh_attention,
    "int4": _packed(4, 8),
    "int2": _packed(2, 4),
}
"""Passes -> what makes such a network of a dense one, which may be changed."""
DENSE = ("distill", "layers removed", "neurons removed", "prune")
"""Those that GPT-NeoX is."""
ONLY_HEADRACE = ("linear_attention", "lsh_attention", "int4", "int2")
"""Those that ONNX has no operators for."""
