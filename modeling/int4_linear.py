"""int4 weights in groups, float32 activations: the smallest matrices, for where memory counts and not time.

Weights of 32 consecutive inputs of an output share a scale; they are integers from -7 to 7, two to a byte. Groups as in
GPTQ (Frantar et al. 2022, 2210.17323, section 4, "additional tricks"). Only some rows of the matrix are float32 at a
time, so that a product takes little memory beside the integers.

torch's own product of int4 (`_weight_int4pack_mm_for_cpu`) takes a layout that depends on the processor, and 10 to 80
times as long as float32 where there is no AVX512.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.int8_linear import IntegerLayer, int8_layer, quantize_rows, with_integers
from modeling.replaced_modules import replaces
from modeling.transformer import Transformer

GROUP = 32
"""Inputs that share a scale; the last group of a matrix may have fewer."""
LARGEST = 7
"""-8 is not used, so that the range is symmetric."""
WEIGHTS_AT_ONCE = 1 << 18
"""Most that are float32 at a time, as 1 MB."""


def quantize_groups(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round each group of inputs by its own largest magnitude.

    Args:
        weight: (outputs, inputs) float.

    Returns:
        int8 (outputs, inputs) from -7 to 7, and scales (outputs, groups) float32; their product differs from `weight`
        by half a scale at most.
    """
    grouped = _grouped(weight.float())
    scales = grouped.abs().amax(-1).div_(LARGEST)
    codes = grouped.div(scales.clamp_min(torch.finfo(torch.float32).tiny)[..., None]).round_().to(torch.int8)
    return codes.flatten(1)[:, : weight.shape[1]].contiguous(), scales


def pack(codes: Tensor) -> Tensor:
    """int8 (outputs, inputs) from -8 to 7 -> uint8 (outputs, 16 x groups).

    Byte j of a group holds input j in its lower half and input j + 16 in its upper half, each in two's complement;
    inputs that are missing in the last group are 0.
    """
    lower, upper = torch.unflatten(_grouped(codes), -1, (2, GROUP // 2)).unbind(-2)
    return ((lower & 15) | (upper << 4)).flatten(1).view(torch.uint8)


def unpack(packed: Tensor, inputs: int) -> Tensor:
    """The inverse of `pack`: int8 (outputs, inputs)."""
    halves = torch.unflatten(packed.view(torch.int8), -1, (-1, GROUP // 2))
    # Shifting an int8 to the right keeps its sign.
    return torch.cat((halves << 4 >> 4, halves >> 4), dim=-1).flatten(1)[:, :inputs]


@replaces("int4_linear")
class Int4Linear(nn.Module):
    """A linear layer whose weights are int4; no gradient."""

    operand_bits = (4, 32)
    """Of a weight and of an activation, for `modeling.network_counting`."""
    packed: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        """Make room: uint8 (outputs, 16 x groups), float32 scale (outputs, groups) and, if wanted, bias (outputs)."""
        super().__init__()
        self._inputs = inputs
        groups = -(-inputs // GROUP)
        self.register_buffer("packed", torch.empty(outputs, groups * GROUP // 2, dtype=torch.uint8))
        self.register_buffer("scale", torch.empty(outputs, groups))
        self.register_buffer("bias", torch.empty(outputs) if bias else None)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., inputs) float -> (..., outputs) float32."""
        rows = hidden.reshape(-1, self._inputs).float()
        outputs, groups = self.scale.shape
        result = rows.new_empty(len(rows), outputs)
        at_once = max(1, WEIGHTS_AT_ONCE // (groups * GROUP))
        for start in range(0, outputs, at_once):
            some = slice(start, start + at_once)
            torch.mm(rows, self._weight(some)[:, : self._inputs].T, out=result[:, some])
        if self.bias is not None:
            result += self.bias
        return result.view(*hidden.shape[:-1], outputs)

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"inputs": self._inputs, "outputs": len(self.scale), "bias": self.bias is not None}

    def _weight(self, some: slice) -> Tensor:
        """Those rows, (outputs, 32 x groups) float32."""
        halves = torch.unflatten(self.packed[some].view(torch.int8), -1, (-1, GROUP // 2))
        weight = self.scale.new_empty(*halves.shape[:-1], GROUP)
        # Each code times 16 first, at the place where its half of the byte has it.
        weight[..., : GROUP // 2] = halves << 4
        weight[..., GROUP // 2 :] = halves & -16
        return weight.mul_(self.scale[some, :, None] / 16).flatten(1)


def quantize_int4(model: Transformer, codes: Mapping[str, tuple[Tensor, Tensor]] | None = None) -> Transformer:
    """A network whose decoder layers' matrices are int4; embedding and head are int8. `model` stays as it is.

    Args:
        model: a float network, whose modules may have been replaced.
        codes: linear layer's name -> int8 (outputs, inputs) from -7 to 7 and scales (outputs, groups), such as
            `modeling.gptq` finds; other layers' weights are rounded to the nearest.
    """
    codes, layers = codes or {}, {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.startswith("layers."):
            weight, scales = codes.get(name) or quantize_groups(module.weight.detach())
            sizes = {"inputs": module.in_features, "outputs": module.out_features, "bias": module.bias is not None}
            layers[name] = IntegerLayer({"kind": "int4_linear", **sizes}, {"packed": pack(weight), "scale": scales})
        elif isinstance(module, nn.Linear | nn.Embedding):
            layers[name] = int8_layer(module, quantize_rows(module.weight.detach()))
    return with_integers(model, layers)


def _grouped(weight: Tensor) -> Tensor:
    """(outputs, inputs) -> (outputs, groups, 32), with zeros behind the last input."""
    return torch.unflatten(F.pad(weight, (0, -weight.shape[1] % GROUP)), 1, (-1, GROUP))
