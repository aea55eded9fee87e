"""int4 and int2 weights, packed into bytes, with int8 activations: the smallest matrices, and integer products.

A group of consecutive inputs of an output shares a scale (GPTQ, Frantar et al. 2022, 2210.17323, section 4, "additional
tricks"); activations have a scale per token. For few rows a plain loop in C unpacks and multiplies 16-bit integers; for
many rows the same integers are multiplied in float32, with a part of the matrix in float32 at a time.

torch's int4 product (`_weight_int4pack_mm_for_cpu`) needs a layout that depends on the processor, and without AVX512
takes 10 to 80 times as long as float32.

- `pack`, `unpack`: the layout
- `PackedLinear`, `PackedEmbedding`
"""

from typing import Any

import torch
from torch import Tensor, nn

from modeling.kernels.compilation import library
from modeling.layers.int8 import fits_c_kernel, quantize_rows
from modeling.layers.integer_grid import IntegerGrid

ROWS_IN_C = 16
"""Rows up to which a plain loop in C is faster than dequantizing the weights first."""
WEIGHTS_AT_ONCE = 1 << 16
"""Weights that are float32 at the same time, 256 kB."""
STEP = 32
"""A group is a multiple of it, to fill whole vectors of the kernel."""


def pack(codes: Tensor, grid: IntegerGrid) -> Tensor:
    """int8 codes (outputs, inputs) -> uint8 (outputs, groups x group x bits / 8).

    In a group of g weights, byte j holds those of the inputs j, j + g/2 (four bits), or j, j + g/4, j + g/2, j + 3g/4
    (two bits), the first in the lowest bits, each as code + 2^(bits - 1); the last group is padded with code 0.
    """
    per_byte = 8 // grid.bits
    unsigned = grid.grouped(codes) + (1 << grid.bits - 1)
    parts = torch.unflatten(unsigned.to(torch.uint8), -1, (per_byte, -1)).unbind(-2)
    packed = parts[0]
    for position, part in enumerate(parts[1:], start=1):
        packed = packed | part << position * grid.bits
    return packed.flatten(1)


def unpack(packed: Tensor, grid: IntegerGrid, inputs: int) -> Tensor:
    """The inverse of `pack`: int8 (outputs, inputs)."""
    groups = torch.unflatten(packed, 1, (-1, (grid.group or padded(inputs)) * grid.bits // 8))
    mask, half = (1 << grid.bits) - 1, 1 << grid.bits - 1
    parts = [(groups >> shift & mask).to(torch.int8) - half for shift in range(0, 8, grid.bits)]
    return torch.cat(parts, -1).flatten(1)[:, :inputs]


def padded(inputs: int) -> int:
    """`inputs`, rounded up to a multiple of `STEP`."""
    return -(-inputs // STEP) * STEP


class _Packed(nn.Module):
    """Packed weights (rows, columns) and bfloat16 scales (rows, groups); no gradient."""

    packed: Tensor
    scale: Tensor

    def __init__(self, rows: int, columns: int, bits: int, group: int) -> None:
        super().__init__()
        self.grid, self.columns = IntegerGrid(bits, group), columns
        self.operand_bits = (bits, 8)
        """Bits of a weight and of an activation, for `modeling.evaluation.network_counts`."""
        groups = -(-columns // group)
        self.register_buffer("packed", torch.empty(rows, groups * group * bits // 8, dtype=torch.uint8))
        self.register_buffer("scale", torch.empty(rows, groups, dtype=torch.bfloat16))

    def nonzero_weights(self) -> int:
        """Number of nonzero weights."""
        codes = unpack(self.packed, self.grid, self.columns)
        return codes.numel() if self.grid.offset else int(codes.count_nonzero())

    def weights(self, packed: Tensor, scale: Tensor) -> Tensor:
        """Rows dequantized to float32, (rows, columns)."""
        codes = unpack(packed, self.grid, scale.shape[1] * (self.grid.group or 0))
        grouped = torch.unflatten(codes, 1, (-1, self.grid.group or 0))
        return self.grid.values(grouped.float(), scale.float()[..., None]).flatten(1)[:, : self.columns]


class PackedLinear(_Packed):
    """A linear layer whose weights are int4 or int2 and whose activations are int8."""

    bias: Tensor | None

    def __init__(self, inputs: int, outputs: int, bias: bool, bits: int, group: int) -> None:
        """Allocate packed weights, their scales and optionally a bfloat16 bias (outputs)."""
        super().__init__(outputs, inputs, bits, group)
        self.register_buffer("bias", torch.empty(outputs, dtype=torch.bfloat16) if bias else None)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., inputs) float -> (..., outputs) float32."""
        if fits_c_kernel(hidden, ROWS_IN_C):
            return self._few_rows(hidden.float().contiguous())
        codes, token_scales = quantize_rows(hidden.reshape(-1, self.columns))
        rows, outputs = codes.float(), len(self.scale)
        result = rows.new_empty(len(rows), outputs)
        at_once = max(1, WEIGHTS_AT_ONCE // self.columns)
        for start in range(0, outputs, at_once):
            part = slice(start, start + at_once)
            torch.mm(rows, self.weights(self.packed[part], self.scale[part]).T, out=result[:, part])
        result *= token_scales
        if self.bias is not None:
            result += self.bias
        return result.view(*hidden.shape[:-1], outputs)

    def sizes(self) -> dict[str, Any]:
        """As in `modeling.layers.linear.Replacement`."""
        shape = {"inputs": self.columns, "outputs": len(self.scale), "bias": self.bias is not None}
        return {**shape, "bits": self.grid.bits, "group": self.grid.group}

    def _few_rows(self, hidden: Tensor) -> Tensor:
        """One call of `modeling.kernels`, as in `modeling.layers.int8`; contiguous float32 on the CPU."""
        kernels, tensors, grid = library(), self._buffers, self.grid
        packed, scale, bias = tensors["packed"], tensors["scale"], tensors["bias"]
        assert kernels is not None and packed is not None and scale is not None
        result = torch.empty(*hidden.shape[:-1], len(scale))
        failed = kernels.linear_packed(
            hidden.data_ptr(),
            packed.data_ptr(),
            scale.data_ptr(),
            None if bias is None else bias.data_ptr(),
            result.data_ptr(),
            grid.bits,
            grid.group,
            hidden.numel() // self.columns,
            len(scale),
            self.columns,
        )
        if failed:
            raise MemoryError(f"cannot allocate {self.columns} activations")
        return result


class PackedEmbedding(_Packed):
    """An embedding in int4 or int2."""

    def __init__(self, vocabulary_size: int, width: int, bits: int, group: int) -> None:
        """Allocate packed weights and their scales."""
        super().__init__(vocabulary_size, width, bits, group)

    def forward(self, tokens: Tensor) -> Tensor:
        """(...) int64 -> (..., width) float32."""
        flat = tokens.flatten()
        return self.weights(self.packed[flat], self.scale[flat]).view(*tokens.shape, self.columns)

    def sizes(self) -> dict[str, Any]:
        """As in `modeling.layers.linear.Replacement`."""
        shape = {"vocabulary_size": len(self.scale), "width": self.columns}
        return {**shape, "bits": self.grid.bits, "group": self.grid.group}
