"""int8 weights and activations with real integer matrix products.

All are symmetric: weights with a scale per output channel, fixed; activations with a scale per token, found as they
come (LLM.int8(), Dettmers et al. 2022, 2208.07339, section 2.1: vector-wise quantization), or with one scale that was
measured beforehand. The products of int8 sum without error; float32 comes back with both scales and the bias.

- `Int8Linear`: activations by token; `StaticInt8Linear`: by a measured scale; `Int8Embedding`
"""

from typing import Any

import torch
from torch import Tensor, nn

from modeling.kernels.compilation import library

HAS_INT8_PRODUCT = torch.cpu._is_vnni_supported()
"""Whether `torch._int_mm` is fast on this processor; without int8 instructions it takes 10 times as long as float32."""
ROWS_IN_C = 8 if HAS_INT8_PRODUCT else 32
"""Up to which a plain loop in C beats the product for many rows (docs/results.md)."""
LARGEST = 127
"""-128 is not used, so that the range is symmetric."""
OUTPUTS_AT_ONCE = 256
"""Whose weights are float32 at a time, where a float product of integers takes the integer product's place."""


def quantize_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row to int8 by its own largest magnitude.

    Args:
        rows: (..., columns) float.

    Returns:
        int8 (..., columns) and scales (..., 1) float32, whose product differs from `rows` by half a scale at most.
    """
    rows = rows.float()
    scales = rows.abs().amax(-1, keepdim=True).div_(LARGEST)
    # A row of zeros has scale 0; any positive divisor keeps it zero.
    return rows.div(scales.clamp_min(torch.finfo(torch.float32).tiny)).round_().to(torch.int8), scales


def integer_product(codes: Tensor, weight: Tensor) -> Tensor:
    """Activations times weights, summed exactly up to 1,040 inputs and everywhere with int8 instructions.

    Without them, float32 multiplies the integers: sums below 2^24 are exact, larger ones are rounded as any float32.

    Args:
        codes: (rows, inputs) int8.
        weight: (outputs, inputs) int8.

    Returns:
        (rows, outputs) float32.
    """
    if HAS_INT8_PRODUCT or codes.device.type != "cpu":
        return torch._int_mm(codes, weight.T).float()
    numbers = codes.float()
    result = torch.empty(len(codes), len(weight))
    for start in range(0, len(weight), OUTPUTS_AT_ONCE):
        some = slice(start, start + OUTPUTS_AT_ONCE)
        torch.mm(numbers, weight[some].float().T, out=result[:, some])
    return result


def takes_few_rows(hidden: Tensor, most: int) -> bool:
    """Whether the kernels in C are there and (..., inputs) has at most so many rows."""
    return hidden.is_cpu and hidden.numel() <= most * hidden.shape[-1] and library() is not None


class _Int8Matrix(nn.Module):
    """The tensors of a linear layer in int8; no gradient."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        """Make room for int8 (outputs, inputs), float32 scale (outputs) and, if wanted, bias (outputs)."""
        super().__init__()
        assert inputs > 1, "torch 2.13's _int_mm returns memory it never wrote where the inner dimension is 1"
        self.register_buffer("weight", torch.empty(outputs, inputs, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(outputs))
        self.register_buffer("bias", torch.empty(outputs) if bias else None)

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"inputs": self.weight.shape[1], "outputs": self.weight.shape[0], "bias": self.bias is not None}

    def _scaled(self, sums: Tensor) -> Tensor:
        """Sums (rows, outputs), in the activations' scale, times the weights' scales, and the bias; `sums` is lost."""
        # addcmul does scale and bias in one pass over the result.
        return sums.mul_(self.scale) if self.bias is None else torch.addcmul(self.bias, sums, self.scale)

    def _few_rows(self, hidden: Tensor, input_scale: float = 0.0) -> Tensor:
        """By `modeling.kernels`, contiguous float32 on the CPU: quantizing, product and scales in one call.

        An `input_scale` of 0 is one for each row. For one row at width 128 the context of a call take longer than
        the call: tensors come straight from the module's dict, and the arguments are not looked at again.
        """
        kernels, tensors = library(), self._buffers
        weight, scale, bias = tensors["weight"], tensors["scale"], tensors["bias"]
        assert kernels is not None and weight is not None and scale is not None
        outputs, inputs = weight.shape
        result = torch.empty(*hidden.shape[:-1], outputs)
        failed = kernels.linear_int8(
            hidden.data_ptr(),
            weight.data_ptr(),
            scale.data_ptr(),
            None if bias is None else bias.data_ptr(),
            result.data_ptr(),
            input_scale,
            hidden.numel() // inputs,
            outputs,
            inputs,
        )
        if failed:
            raise MemoryError(f"no memory for {inputs} activations")
        return result


class Int8Linear(_Int8Matrix):
    """A linear layer whose matrix product is of integers; activations have a scale per token."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., inputs) float -> (..., outputs) float32."""
        if takes_few_rows(hidden, ROWS_IN_C):
            return self._few_rows(hidden.float().contiguous())
        codes, token_scales = quantize_rows(hidden.reshape(-1, hidden.shape[-1]))
        result = self._scaled(integer_product(codes, self.weight).mul_(token_scales))
        return result.view(*hidden.shape[:-1], len(self.scale))


class StaticInt8Linear(_Int8Matrix):
    """A linear layer whose matrix product is of integers; all activations have one scale, measured beforehand.

    What is larger than was measured is cut off. The scale is part of the layer's description, not a tensor.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool, input_scale: float) -> None:
        """Make room; `input_scale` is what an activation of code 1 stands for, above 0."""
        super().__init__(inputs, outputs, bias)
        self.input_scale = input_scale

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., inputs) float -> (..., outputs) float32."""
        if takes_few_rows(hidden, ROWS_IN_C):
            return self._few_rows(hidden.float().contiguous(), self.input_scale)
        rows = hidden.reshape(-1, hidden.shape[-1]).float()
        codes = rows.div(self.input_scale).round_().clamp_(-LARGEST, LARGEST).to(torch.int8)
        result = self._scaled(integer_product(codes, self.weight).mul_(self.input_scale))
        return result.view(*hidden.shape[:-1], len(self.scale))

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().sizes(), "input_scale": self.input_scale}


class Int8Embedding(nn.Module):
    """An embedding table in int8 with a scale per token of the vocabulary."""

    weight: Tensor
    scale: Tensor

    def __init__(self, vocabulary_size: int, width: int) -> None:
        """Make room for int8 (vocabulary_size, width) and float32 scale (vocabulary_size)."""
        super().__init__()
        self.register_buffer("weight", torch.empty(vocabulary_size, width, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(vocabulary_size))

    def forward(self, tokens: Tensor) -> Tensor:
        """(...) int64 -> (..., width) float32."""
        return self.weight[tokens] * self.scale[tokens, None]

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"vocabulary_size": self.weight.shape[0], "width": self.weight.shape[1]}
