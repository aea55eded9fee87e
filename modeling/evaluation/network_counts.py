"""Parameters and operations of a network, compressed or not: low-rank, resized, pruned and quantized modules.

`modeling.evaluation.config_counts` has the same figures for an uncompressed network by its config, without torch.

- `network_parameters`, `nonzero_parameters`
- `dense_macs_per_token`, `nonzero_macs_per_token`: multiply-accumulates of a forward pass
- `bit_operations_per_token`: multiply-accumulates weighted by the bits of their operands
"""

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
"""Bits of each operand of a product of floats; bfloat16 in a file is float32 in memory."""


@dataclass(frozen=True)
class _Product:
    """A matrix multiplied with tokens."""

    outputs: int
    inputs: int
    nonzero: int
    uses: float
    """Uses per token; below 1 for experts."""
    bits: int
    """Bits of the weight times bits of the activation."""


def network_parameters(model: Transformer) -> int:
    """Number of weights and biases of any bit width, including zeros; a tied table counts once, scales do not count."""
    return _count(model, lambda module, shape: shape[0] * shape[1], Tensor.numel)


def nonzero_parameters(model: Transformer) -> int:
    """Number of nonzero weights and biases, otherwise as `network_parameters`."""
    return _count(model, _nonzero, lambda tensor: int(tensor.count_nonzero()))


def _count(
    model: Transformer, count_matrix: Callable[[nn.Module, tuple[int, int]], int], count_tensor: Callable[[Tensor], int]
) -> int:
    total = 0
    for name, module in model.named_modules():
        if tied_tensor(f"{name}.", model.config) and matrix_shape(module) is not None:
            continue
        shape = matrix_shape(module) or _table_shape(module)
        if shape is None:
            total += sum(count_tensor(parameter) for parameter in module.parameters(recurse=False))
        else:
            bias = getattr(module, "bias", None)
            total += count_matrix(module, shape) + (0 if bias is None else count_tensor(bias))
    return total


def dense_macs_per_token(model: Transformer, context: int) -> float:
    """Multiply-accumulates per token of a forward pass over rows of `context` tokens, including products with zeros.

    Counted as in `modeling.evaluation.config_counts.forward_flops` (a MAC is two FLOPs): all matrices, including the
    head, and attention scores and mixing of values by each layer's number of heads. Tokens are assumed to be in the
    first embedding band and to use `active` experts of mean size.
    """
    return sum(product.outputs * product.inputs * product.uses for product in _products(model)) + _attention_macs(
        model, context
    )


def nonzero_macs_per_token(model: Transformer, context: int) -> float:
    """Multiply-accumulates as in `dense_macs_per_token`, without products with zero weights."""
    return sum(product.nonzero * product.uses for product in _products(model)) + _attention_macs(model, context)


def bit_operations_per_token(model: Transformer, context: int, skip_zeros: bool = False) -> float:
    """MACs times bits of the weight times bits of the activation (Bayesian Bits, 2005.07093, section 4).

    A product of float32 counts 1,024, of two int8 64. Attention's own products are of float32 unless its class has
    `mixing_bits`: full attention over an int8 cache multiplies integers. Scales, norms and softmax are not counted.

    Args:
        model: any network. A module's class may have `operand_bits`, (weight, activation); by default int8 weights have
            int8 activations, others float32.
        context: tokens per row.
        skip_zeros: skip products with zero weights.
    """
    matrices = sum(
        (product.nonzero if skip_zeros else product.outputs * product.inputs) * product.uses * product.bits
        for product in _products(model)
    )
    return matrices + sum(macs * bits for macs, bits in _attention_products(model, context))


def matrix_shape(module: nn.Module) -> tuple[int, int] | None:
    """(outputs, inputs) of a linear layer of any kind; None for other modules and for compositions of linear layers."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, Router):
        return module.weight.shape[0], module.weight.shape[1]
    sizes = _sizes(module)
    return (sizes["outputs"], sizes["inputs"]) if {"outputs", "inputs"} <= sizes.keys() else None


def outputs_of(module: nn.Module) -> int:
    """Number of outputs of a linear layer of any kind, including low-rank ones."""
    return module.out_features if isinstance(module, nn.Linear) else int(module.sizes()["outputs"])  # type: ignore[operator]


def attention_heads(attention: Attention) -> int:
    """Number of attention heads of a layer, also with replaced matrices."""
    return outputs_of(attention.query_key_value) // (3 * attention.head_width)


def _sizes(module: nn.Module) -> dict[str, Any]:
    """Sizes of a replaced module without submodules; else empty."""
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
        uses = next((share for prefix, share in shares.items() if name.startswith(prefix)), 1.0)
        yield _Product(*shape, _nonzero(module, shape), uses, _bits(module))


def _nonzero(module: nn.Module, shape: tuple[int, int]) -> int:
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.numel() == shape[0] * shape[1]:
        return int(weight.count_nonzero())
    packed = getattr(module, "nonzero_weights", None)
    return int(packed()) if packed else shape[0] * shape[1]


def _bits(module: nn.Module) -> int:
    weight = getattr(module, "weight", None)
    is_int8 = isinstance(weight, Tensor) and weight.dtype == torch.int8
    weight_bits, activation_bits = getattr(module, "operand_bits", (8, 8) if is_int8 else (FLOAT_BITS, FLOAT_BITS))
    return int(weight_bits * activation_bits)


def _attention_macs(model: Transformer, context: int) -> float:
    return sum(macs for macs, _ in _attention_products(model, context))


def _attention_products(model: Transformer, context: int) -> Iterator[tuple[float, int]]:
    """(MACs of scores and mixing of values, bits per MAC) of each attention; replacements define `mixing_products`."""
    for module in model.layers.modules():
        bits = getattr(module, "mixing_bits", FLOAT_BITS**2)
        if isinstance(module, Attention):
            width = attention_heads(module) * module.head_width
            yield 2 * width * computed_scores(module.kind, context) / context, bits
        elif callable(mixing_products := getattr(module, "mixing_products", None)):
            yield mixing_products(context), bits
