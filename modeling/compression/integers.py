"""Networks with integer weights or integer caches, from float ones.

- `quantize_int8`: every matrix, embedding and head in int8 (`modeling.layers.int8`)
- `quantize_packed`: int4 or int2 matrices (`modeling.layers.packed`), embedding and head in int8, int4 or int2
- `with_int8_cache`: keys and values kept in int8 (`modeling.attention.int8_cache`)
- `IntegerLayer`, `int8_layer`, `packed_layer`, `with_integers`: one layer's tensors, and the network that has them
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modeling.attention.lsh_attention import LshAttention
from modeling.attention.multi_head import Attention
from modeling.layers.int8 import quantize_rows
from modeling.layers.integer_grid import IntegerGrid, quantize
from modeling.layers.linear import Description
from modeling.layers.packed import pack, padded
from modeling.replacements import empty_network, replacements_of
from modeling.transformer import Transformer


@dataclass(frozen=True)
class IntegerLayer:
    """Replacement of a linear layer or an embedding."""

    description: Description
    tensors: dict[str, Tensor]
    """By name in the layer; if the bias is not among them, the layer keeps its own."""


def quantize_int8(
    model: Transformer,
    codes: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    input_scales: Mapping[str, float] | None = None,
) -> Transformer:
    """A network with every matrix, embedding and head in int8. `model` stays as it is.

    Norms, biases, routers and learned pooling stay float32.

    A tied head uses the embedding's table: a row is a token's vector in the embedding and an output channel in the
    head, so that one scale per row serves both.

    Args:
        model: a float network, whose modules may have been replaced.
        codes: linear layer's name -> int8 (outputs, inputs) and scales (outputs, 1), such as those of
            `modeling.compression.gptq`; other layers' weights are rounded to nearest.
        input_scales: linear layer's name -> scale of its activations
            (`modeling.compression.smooth_quant.static_scales`); other layers' activations have a scale per token.
    """
    codes, input_scales = codes or {}, input_scales or {}
    layers: dict[str, IntegerLayer] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            layer_codes = codes.get(name) or quantize_rows(module.weight.detach())
            layers[name] = int8_layer(module, layer_codes, input_scales.get(name))
    return with_integers(model, layers)


def quantize_packed(
    model: Transformer,
    grid: IntegerGrid,
    table: IntegerGrid,
    codes: Mapping[str, tuple[Tensor, Tensor]] | None = None,
) -> Transformer:
    """A network whose matrices are packed, embedding and head on a grid of their own. `model` stays as it is.

    Args:
        model: a float network, whose modules may have been replaced.
        grid: of the decoder layers' matrices, 4 or 2 bits.
        table: of embedding and head; 8 bits makes an `Int8Embedding` and an `Int8Linear`.
        codes: linear layer's name -> int8 codes (outputs, inputs) and scales (outputs, groups), such as those of
            `modeling.compression.gptq`; other weights are rounded to nearest.
    """
    codes, layers = codes or {}, {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding):
            continue
        own_grid = grid if name.startswith("layers.") else table
        weight = module.weight.detach()
        if own_grid.bits == 8:
            layers[name] = int8_layer(module, quantize_rows(weight))
        else:
            layers[name] = packed_layer(module, codes.get(name) or quantize(weight, own_grid), own_grid)
    return with_integers(model, layers)


def with_int8_cache(model: Transformer) -> Transformer:
    """The same network, with the same tensors, whose softmax attention keeps keys and values in int8.

    Linear attention has no keys and values to keep, and stays as it is.
    """
    replaced: dict[str, Description] = {}
    for index, layer in enumerate(model.layers.children()):
        attention = layer.attention
        name = f"layers.{index}.attention"
        if type(attention) is LshAttention:
            replaced[name] = {"kind": "int8_cache_lsh_attention", **attention.sizes()}
        elif type(attention) is Attention:
            config = model.config
            kind = attention.kind.model_dump(mode="json")
            sizes = {"width": config.width, "heads": config.heads, "scale": attention.scale}
            replaced[name] = {"kind": "int8_cache_attention", "attention": kind, **sizes}
    # Modules inside an attention are replaced after it.
    inside = {name: description for name, description in replacements_of(model).items() if name not in replaced}
    changed = empty_network(model.config, replaced | inside).train(model.training)
    changed.load_state_dict(model.state_dict(keep_vars=True), assign=True)
    if model.config.tied_embeddings:
        changed.tie_head()
    return changed


def int8_layer(
    module: nn.Linear | nn.Embedding, codes: tuple[Tensor, Tensor], input_scale: float | None = None
) -> IntegerLayer:
    """The int8 layer for a linear layer or an embedding, from int8 (rows, columns) and scales (rows, 1)."""
    weight, scales = codes
    tensors = {"weight": weight, "scale": scales.squeeze(-1)}
    rows, columns = weight.shape
    if isinstance(module, nn.Embedding):
        return IntegerLayer({"kind": "int8_embedding", "vocabulary_size": rows, "width": columns}, tensors)
    sizes = {"inputs": columns, "outputs": rows, "bias": module.bias is not None}
    if input_scale is None:
        return IntegerLayer({"kind": "int8_linear", **sizes}, tensors)
    return IntegerLayer({"kind": "static_int8_linear", **sizes, "input_scale": input_scale}, tensors)


def packed_layer(module: nn.Linear | nn.Embedding, codes: tuple[Tensor, Tensor], grid: IntegerGrid) -> IntegerLayer:
    """The packed layer for a linear layer or an embedding, from codes (rows, columns) and scales (rows, groups)."""
    weight, scales = codes
    (rows, columns), group = weight.shape, grid.group or padded(weight.shape[1])
    packing = {"bits": grid.bits, "group": group}
    tensors = {"packed": pack(weight, IntegerGrid(grid.bits, group)), "scale": scales.bfloat16()}
    if isinstance(module, nn.Embedding):
        return IntegerLayer({"kind": "packed_embedding", "vocabulary_size": rows, "width": columns, **packing}, tensors)
    sizes = {"inputs": columns, "outputs": rows, "bias": module.bias is not None}
    if module.bias is not None:
        tensors["bias"] = module.bias.detach().bfloat16()
    return IntegerLayer({"kind": "packed_linear", **sizes, **packing}, tensors)


def with_integers(model: Transformer, layers: Mapping[str, IntegerLayer]) -> Transformer:
    """A network with integer layers at these names, everything else copied as float32; without gradient."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    replacements = replacements_of(model)
    for name, layer in layers.items():
        replacements[name] = layer.description
        del state[f"{name}.weight"]
        state |= {f"{name}.{key}": tensor for key, tensor in layer.tensors.items()}
    copies = {name: _copied(name, tensor, layers) for name, tensor in state.items()}
    quantized = empty_network(model.config, replacements).requires_grad_(False)
    quantized.load_state_dict(copies, assign=True)
    if model.config.tied_embeddings:
        quantized.tie_head()
    return quantized


def _copied(name: str, tensor: Tensor, layers: Mapping[str, IntegerLayer]) -> Tensor:
    """A copy in float32; tensors of integer layers, and integers, keep their dtype."""
    layer, _, key = name.rpartition(".")
    is_own = layer in layers and key in layers[layer].tensors
    return tensor.to(tensor.dtype if is_own or not tensor.is_floating_point() else torch.float32, copy=True)
