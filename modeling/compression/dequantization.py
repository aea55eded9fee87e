"""Float networks from quantized ones, for training.

- `dequantized`: a copy with float32 matrices of the same values
- `integer_modules`: the quantized modules of a network
"""

import torch
from torch import Tensor, nn

from modeling.layers.int8 import Int8Embedding, Int8Linear, StaticInt8Linear
from modeling.layers.packed import PackedEmbedding, PackedLinear
from modeling.replacements import rebuild, replacements_of
from modeling.transformer import Transformer

_INT8 = (Int8Linear, StaticInt8Linear, Int8Embedding)
_PACKED = (PackedLinear, PackedEmbedding)


def integer_modules(model: Transformer) -> dict[str, nn.Module]:
    """Modules with integer weights, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _INT8 + _PACKED)}


@torch.no_grad()
def dequantized(model: Transformer) -> Transformer:
    """A copy in evaluation mode with trainable float32 matrices; `model` stays as it is.

    Weights are dequantized exactly. Activations are no longer rounded, and those of a `StaticInt8Linear` no longer
    clipped, so the outputs are those of `model` up to that rounding.
    """
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    replacements = replacements_of(model)
    for name, module in integer_modules(model).items():
        del replacements[name]
        for buffer in dict(module.named_buffers()):
            del state[f"{name}.{buffer}"]
        state[f"{name}.weight"] = _weight(module)
        bias = getattr(module, "bias", None)
        if bias is not None:
            state[f"{name}.bias"] = bias.float()
    return rebuild(model.config, replacements, state)


def _weight(module: nn.Module) -> Tensor:
    """Float32 (rows, columns)."""
    if isinstance(module, _PACKED):
        return module.weights(module.packed, module.scale).contiguous()
    assert isinstance(module, _INT8)
    return module.weight.float() * module.scale[:, None]
