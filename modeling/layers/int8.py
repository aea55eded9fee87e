"""int8 weights and activations with real integer matrix products.

Quantization is symmetric: weights have a scale per output channel; activations have a dynamic scale per token
(LLM.int8(), Dettmers et al. 2022, 2208.07339, section 2.1: vector-wise quantization), or one static scale from
calibration. int8 products are summed exactly, then dequantized to float32 with both scales, and the bias is added.

- `Int8Linear`: dynamic scales of activations; `StaticInt8Linear`: a static scale; `Int8Embedding`
- `quantize_rows`, `integer_product`
"""

from typing import Any

import torch
from torch import Tensor, nn

from modeling.kernels.compilation import library

HAS_INT8_PRODUCT = torch.cpu._is_vnni_supported()
"""Whether `torch._int_mm` is fast on this processor; without int8 instructions it takes 10 times as long as float32."""
ROWS_IN_C = 8 if HAS_INT8_PRODUCT else 32
"""Rows up to which a plain loop in C is faster than the product for many rows (docs/results.md)."""
LARGEST = 127
"""-128 is not used, so that the range is symmetric."""
OUTPUTS_AT_ONCE = 256
"""Outputs whose weights are float32 at the same time, if a float product of integers replaces the integer product."""


def quantize_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row to int8 by its own largest magnitude.

    Args:
        rows: (..., columns) float.

    Returns:
        int8 (..., columns) and scales (..., 1) float32, whose product differs from `rows` by at most half a scale.
    """
    rows = rows.float()
    scales = rows.abs().amax(-1, keepdim=True).div_(LARGEST)
    # A row of zeros has scale 0; any positive divisor keeps it zero.
    return rows.div(scales.clamp_min(torch.finfo(torch.float32).tiny)).round_().to(torch.int8), scales


def integer_product(codes: Tensor, weight: Tensor) -> Tensor:
    """Activations times weights; sums are exact with int8 instructions, without them up to 1,040 inputs.

    Without int8 instructions the product is in float32: sums below 2^24 are exact, larger ones are rounded.

    Args:
        codes: (rows, inputs) int8.
        weight: (outputs, inputs) int8.

    Returns:
        (rows, outputs) float32.
    """
    if HAS_INT8_PRODUCT or codes.device.type != "cpu":
        return torch._int_mm(codes, weight.T).float()
    floats = codes.float()
    result = torch.empty(len(codes), len(weight))
    for start in range(0, len(weight), OUTPUTS_AT_ONCE):
        outputs = slice(start, start + OUTPUTS_AT_ONCE)
        torch.mm(floats, weight[outputs].float().T, out=result[:, outputs])
    return result


def fits_c_kernel(hidden: Tensor, max_rows: int) -> bool:
    """Whether the kernels in C are available and (..., inputs) has at most `max_rows` rows."""
    return hidden.is_cpu and hidden.numel() <= max_rows * hidden.shape[-1] and library() is not None


class _Int8Matrix(nn.Module):
    """The tensors of a linear layer in int8; no gradient."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        """Allocate int8 (outputs, inputs), float32 scale (outputs) and optionally bias (outputs)."""
        super().__init__()
        assert inputs > 1, "torch 2.13's _int_mm returns uninitialized memory if the inner dimension is 1"
        self.register_buffer("weight", torch.empty(outputs, inputs, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(outputs))
        self.register_buffer("bias", torch.empty(outputs) if bias else None)

    def sizes(self) -> dict[str, Any]:
        """As in `modeling.layers.linear.Replacement`."""
        return {"inputs": self.weight.shape[1], "outputs": self.weight.shape[0], "bias": self.bias is not None}

    def _scaled(self, sums: Tensor) -> Tensor:
        """Sums (rows, outputs) of scaled activations, times the weights' scales, plus the bias; overwrites `sums`."""
        # addcmul does scale and bias in one pass over the result.
        return sums.mul_(self.scale) if self.bias is None else torch.addcmul(self.bias, sums, self.scale)

    def _few_rows(self, hidden: Tensor, input_scale: float = 0.0) -> Tensor:
        """Quantize, multiply and scale by one call of `modeling.kernels`; contiguous float32 on the CPU.

        An `input_scale` of 0 means a scale for each row. For one row of width 128 the overhead in Python exceeds the
        call itself: tensors are taken from the module's dict, and arguments are not checked again.
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
            raise MemoryError(f"cannot allocate {inputs} activations")
        return result


class Int8Linear(_Int8Matrix):
    """A linear layer with an integer matrix product; activations have a scale per token."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., inputs) float -> (..., outputs) float32."""
        if fits_c_kernel(hidden, ROWS_IN_C):
            return self._few_rows(hidden.float().contiguous())
        codes, token_scales = quantize_rows(hidden.reshape(-1, hidden.shape[-1]))
        result = self._scaled(integer_product(codes, self.weight).mul_(token_scales))
        return result.view(*hidden.shape[:-1], len(self.scale))


class StaticInt8Linear(_Int8Matrix):
    """A linear layer with an integer matrix product; all activations have one static scale from calibration.

    Larger activations than in calibration are clipped. The scale is part of the layer's description, not a tensor.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool, input_scale: float) -> None:
        """Allocate the tensors; `input_scale` is the activation with code 1, above 0."""
        super().__init__(inputs, outputs, bias)
        self.input_scale = input_scale

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., inputs) float -> (..., outputs) float32."""
        if fits_c_kernel(hidden, ROWS_IN_C):
            return self._few_rows(hidden.float().contiguous(), self.input_scale)
        rows = hidden.reshape(-1, hidden.shape[-1]).float()
        codes = rows.div(self.input_scale).round_().clamp_(-LARGEST, LARGEST).to(torch.int8)
        # No code represents NaN: the scale of such a row is NaN.
        scales = torch.where(rows.isnan().any(-1, keepdim=True), torch.nan, self.input_scale)
        result = self._scaled(integer_product(codes, self.weight).mul_(scales))
        return result.view(*hidden.shape[:-1], len(self.scale))

    def sizes(self) -> dict[str, Any]:
        """As in `modeling.layers.linear.Replacement`."""
        return {**super().sizes(), "input_scale": self.input_scale}


class Int8Embedding(nn.Module):
    """An embedding table in int8 with a scale per token of the vocabulary."""

    weight: Tensor
    scale: Tensor

    def __init__(self, vocabulary_size: int, width: int) -> None:
        """Allocate int8 (vocabulary_size, width) and float32 scale (vocabulary_size)."""
        super().__init__()
        self.register_buffer("weight", torch.empty(vocabulary_size, width, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(vocabulary_size))

    def forward(self, tokens: Tensor) -> Tensor:
        """(...) int64 -> (..., width) float32."""
        return self.weight[tokens] * self.scale[tokens, None]

    def sizes(self) -> dict[str, Any]:
        """As in `modeling.layers.linear.Replacement`."""
        return {"vocabulary_size": self.weight.shape[0], "width": self.weight.shape[1]}
