"""Integer grids that weights are rounded to: bits, and the group of weights that share a scale.

A weight is (code + offset) x scale. Two bits have four levels at -3/2, -1/2, 1/2 and 3/2 of the scale: none of the few
levels is zero (ParetoQ, Liu et al. 2025, 2502.02631, section 3.2). Four and eight bits have a zero, so that pruned
weights stay zero.

- `IntegerGrid`: `scales`, `codes`, `values`
- `quantize`, `dequantize`: whole matrices; `round_trip`: both
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = torch.finfo(torch.float32).tiny
CLIP_FACTORS = tuple(1 - step / 16 for step in range(11))
"""Factors tried on the scale of the largest weight: with few levels, clipping it can reduce the total error."""


@dataclass(frozen=True)
class IntegerGrid:
    """Values that weights are rounded to."""

    bits: int
    """8, 4 or 2."""
    group: int | None = None
    """Consecutive inputs that share a scale; all inputs of an output if None."""

    @property
    def highest(self) -> int:
        """Largest code."""
        return {8: 127, 4: 7, 2: 1}[self.bits]

    @property
    def lowest(self) -> int:
        """Smallest code; the range is symmetric."""
        return -2 if self.bits == 2 else -self.highest

    @property
    def offset(self) -> float:
        """Added to a code."""
        return 0.5 if self.bits == 2 else 0.0

    def scales(self, weights: Tensor) -> Tensor:
        """(..., weights that share a scale) float -> (...) float32.

        For eight bits from the largest magnitude, exactly; else bfloat16 numbers with the smallest squared error.
        """
        weights = weights.float()
        largest = weights.abs().amax(-1) / (self.highest + self.offset)
        if self.bits == 8:
            return largest
        best = largest.bfloat16().float()
        best_error = self._squared_error(weights, best)
        for factor in CLIP_FACTORS[1:]:
            scale = (largest * factor).bfloat16().float()
            error = self._squared_error(weights, scale)
            best = torch.where(error < best_error, scale, best)
            best_error = torch.minimum(error, best_error)
        return best

    def codes(self, weights: Tensor, scales: Tensor) -> Tensor:
        """Nearest codes, in the dtype of `weights`; `scales` has the same shape or broadcasts to it."""
        # Weights that are all zero have scale 0; any positive divisor keeps them zero.
        return (weights / scales.clamp_min(TINY) - self.offset).round_().clamp_(self.lowest, self.highest)

    def values(self, codes: Tensor, scales: Tensor) -> Tensor:
        """Weights of these codes."""
        return (codes + self.offset) * scales

    def grouped(self, matrix: Tensor) -> Tensor:
        """(outputs, inputs) -> (outputs, groups, group), padded with zeros."""
        group = self.group or matrix.shape[1]
        return torch.unflatten(F.pad(matrix, (0, -matrix.shape[1] % group)), 1, (-1, group))

    def _squared_error(self, weights: Tensor, scale: Tensor) -> Tensor:
        scale = scale[..., None]
        return (self.values(self.codes(weights, scale), scale) - weights).square_().sum(-1)


def quantize(weight: Tensor, grid: IntegerGrid) -> tuple[Tensor, Tensor]:
    """Round a matrix (outputs, inputs) to nearest.

    Returns:
        Codes int8 (outputs, inputs) and scales float32 (outputs, groups).
    """
    grouped = grid.grouped(weight.float())
    scales = grid.scales(grouped)
    codes = grid.codes(grouped, scales[..., None]).to(torch.int8)
    return codes.flatten(1)[:, : weight.shape[1]].contiguous(), scales


def dequantize(codes: Tensor, scales: Tensor, grid: IntegerGrid) -> Tensor:
    """Float32 (outputs, inputs) from codes (outputs, inputs) and scales (outputs, groups)."""
    inputs = codes.shape[1]
    return grid.values(codes.float(), scales.float().repeat_interleave(grid.group or inputs, dim=1)[:, :inputs])


def round_trip(weight: Tensor, grid: IntegerGrid) -> Tensor:
    """`weight` quantized and dequantized, float32."""
    return dequantize(*quantize(weight, grid), grid)
