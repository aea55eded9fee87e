"""What stands in a network, by counting: low-rank, resized, pruned and quantized modules as they are.

`modeling.evaluation.config_counts` has the same figures for a network that a config alone describes, without torch.

- `network_parameters`, `nonzero_parameters`
- `dense_macs_per_token`, `nonzero_macs_per_token`: multiply-accumulates of a forward pass
- `bit_operations_per_token`: those weighted by the bits that are multiplied
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modeling.attention.multi_head import Attention
from modeling.attention.tiles import computed_scores
from modeling.embeddings import tied_tensor
from modeling.experts.layer import Experts
from modeling.experts.router import Router
from modeling.transformer import Transformer

FLOAT_BITS = 32
"""Of both operands of a product of floats; bfloat16 on file is float32 in memory."""


@dataclass(frozen=True)
class _Product:
    """A matrix that tokens are multiplied with."""

    outputs: int
    inputs: int
    nonzero: int
    times: float
    """Per token; below 1 for experts."""
    bits: int
    """Of the weight times of the activation."""


def network_parameters(model: Transformer) -> int:
    """Weights and biases of any width in bits, zeros among them; a tied table once, scales of integers not at all."""
    return _count(model, lambda module, shape: shape[0] * shape[1], Tensor.numel)


def nonzero_parameters(model: Transformer) -> int:
    """As `network_parameters`, of those that are not zero."""
    return _count(model, _nonzero, lambda tensor: int(tensor.count_nonzero()))


def _count(
    model: Transformer, of_matrix: Callable[[nn.Module, tuple[int, int]], int], of_tensor: Callable[[Tensor], int]
) -> int:
    total = 0
    for name, module in model.named_modules():
        if tied_tensor(f"{name}.", model.config) and matrix_shape(module) is not None:
            continue
        shape = matrix_shape(module) or _table_shape(module)
        if shape is None:
            total += sum(of_tensor(parameter) for parameter in module.parameters(recurse=False))
        else:
            bias = getattr(module, "bias", None)
            total += of_matrix(module, shape) + (0 if bias is None else of_tensor(bias))
    return total


def dense_macs_per_token(model: Transformer, context: int) -> float:
    """Multiply-accumulates per token of a forward pass over rows of `context` tokens, zeros multiplied too.

    Counted as `modeling.evaluation.config_counts.forward_flops` counts (a MAC is two FLOPs): all matrices, the head
    among them, and the scores and mixed values of attention, of as many heads as each layer has. Tokens are taken to be
    of the first embedding band and to pass through `active` experts each, of the mean size.
    """
    return sum(one.outputs * one.inputs * one.times for one in _products(model)) + _attention_macs(model, context)


def nonzero_macs_per_token(model: Transformer, context: int) -> float:
    """As `dense_macs_per_token` without products with zeros of the matrices: what a kernel that skips them all does."""
    return sum(one.nonzero * one.times for one in _products(model)) + _attention_macs(model, context)


def bit_operations_per_token(model: Transformer, context: int, skip_zeros: bool = False) -> float:
    """MACs, each times the bits of its weight and those of its activation (Bayesian Bits, 2005.07093, section 4).

    A product of float32 counts 1,024, of two int8 64. Attention's own products are of float32, but for keys and values
    of an int8 cache, which meet float32 queries and shares: 256.

    Args:
        model: any network. A module's class may say `operand_bits`, (weight, activation); without it int8 weights meet
            int8 activations, others float32.
        context: tokens per row.
        skip_zeros: leave out products with weights that are zero.
    """
    matrices = sum(
        (one.nonzero if skip_zeros else one.outputs * one.inputs) * one.times * one.bits for one in _products(model)
    )
    return matrices + sum(macs * bits for macs, bits in _attention_products(model, context))


def matrix_shape(module: nn.Module) -> tuple[int, int] | None:
    """(outputs, inputs) of a linear layer of any kind; None for other modules, and for those made of linear layers."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, Router):
        return module.weight.shape[0], module.weight.shape[1]
    sizes = _sizes(module)
    return (sizes["outputs"], sizes["inputs"]) if {"outputs", "inputs"} <= sizes.keys() else None


def outputs_of(module: nn.Module) -> int:
    """Outputs of a linear layer of any kind, low-rank ones too."""
    return module.out_features if isinstance(module, nn.Linear) else int(module.sizes()["outputs"])  # type: ignore[operator]


def attention_heads(attention: Attention) -> int:
    """Heads that a layer's attention has, whatever stands in place of its matrices."""
    return outputs_of(attention.query_key_value) // (3 * attention.head_width)


def _sizes(module: nn.Module) -> dict[str, Any]:
    """What a replaced module without modules inside says of itself."""
    has_inner = next(module.children(), None) is not None
    return {} if has_inner or not hasattr(module, "sizes") else module.sizes()  # type: ignore[operator]


def _table_shape(module: nn.Module) -> tuple[int, int] | None:
    if isinstance(module, nn.Embedding):
        return module.num_embeddings, module.embedding_dim
    sizes = _sizes(module)
    return (sizes["vocabulary_size"], sizes["width"]) if {"vocabulary_size", "width"} <= sizes.keys() else None


def _products(model: Transformer) -> Iterator[_Product]:
    shares = {
        f"{name}.experts.": module.router.config.active / len(module.experts)
        for name, module in model.named_modules()
        if isinstance(module, Experts)
    }
    for name, module in model.named_modules():
        shape = matrix_shape(module)
        if shape is None or (name.startswith("embedding.") and name != "embedding.projections.0"):
            continue
        times = next((share for prefix, share in shares.items() if name.startswith(prefix)), 1.0)
        yield _Product(*shape, _nonzero(module, shape), times, _bits(module))


def _nonzero(module: nn.Module, shape: tuple[int, int]) -> int:
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.numel() == shape[0] * shape[1]:
        return int(weight.count_nonzero())
    packed = getattr(module, "nonzero_weights", None)
    return int(packed()) if packed else shape[0] * shape[1]


def _bits(module: nn.Module) -> int:
    weight = getattr(module, "weight", None)
    is_int8 = isinstance(weight, Tensor) and weight.dtype == torch.int8
    of_weight, of_activation = getattr(module, "operand_bits", (8, 8) if is_int8 else (FLOAT_BITS, FLOAT_BITS))
    return int(of_weight * of_activation)


def _attention_macs(model: Transformer, context: int) -> float:
    return sum(macs for macs, _ in _attention_products(model, context))


def _attention_products(model: Transformer, context: int) -> Iterator[tuple[float, int]]:
    """MACs of scores, and of values mixed by them, and the bits of each; others say theirs as `mixing_products`."""
    for module in model.layers.modules():
        bits = math.prod(getattr(module, "mixing_bits", (FLOAT_BITS, FLOAT_BITS)))
        if isinstance(module, Attention):
            width = attention_heads(module) * module.head_width
            yield 2 * width * computed_scores(module.kind, context) / context, bits
        elif callable(mixing_products := getattr(module, "mixing_products", None)):
            yield mixing_products(context), bits
