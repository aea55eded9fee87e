"""Float networks from quantized ones, for what integers cannot do: training.

- `dequantized`: a copy whose matrices are float32 again, with the values that the integers stand for
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
    """The modules whose weights are integers, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _INT8 + _PACKED)}


@torch.no_grad()
def dequantized(model: Transformer) -> Transformer:
    """A copy in evaluation mode in which every matrix is float32 and takes gradients; `model` stays as it is.

    Weights have the very values that their codes and scales stand for. Activations are no longer rounded, and those
    of a `StaticInt8Linear` no longer cut off, so the outputs are those of `model` up to that rounding.
    """
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    replacements = replacements_of(model)
    for name, module in integer_modules(model).items():
        del replacements[name]
        for own in dict(module.named_buffers()):
            del state[f"{name}.{own}"]
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
