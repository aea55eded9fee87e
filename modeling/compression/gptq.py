"""GPTQ: weights compensate for the rounding errors of those rounded before them (Frantar et al. 2022, 2210.17323).

The error of an output row w on inputs X is dw^T H dw with H = X X^T. Columns are rounded from first to last; the error
of each is spread over the following columns, by the rows of the Cholesky factor of H^-1 (section 3.3). It is the method
of `modeling.compression.sparse_gpt` with rounding in place of pruning, in which zeros stay zero.

- `gptq`: one matrix; `gptq_network`: the decoder's, layer by layer
"""

import torch
from torch import Tensor

from modeling.compression.calibration import walk_layers
from modeling.compression.sparse_gpt import inverse_factor
from modeling.layers.integer_grid import IntegerGrid, dequantize
from modeling.transformer import Transformer

BLOCK = 128
"""Columns between two updates of all following ones (section 3.3, step 2)."""
DAMPING = 0.01
"""Added to H's diagonal, as a share of its mean (section 3.3, step 3)."""


def gptq(
    weight: Tensor, hessian: Tensor, grid: IntegerGrid, damping: float = DAMPING, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """Round a matrix so that its outputs on the inputs of `hessian` change little.

    A group's scale is computed from its weights after the updates by all columns before it.

    Args:
        weight: (outputs, inputs); zeros stay zero if the grid has a zero.
        hessian: (inputs, inputs), sum or mean of x x^T over the inputs; if all zero, weights are rounded to nearest.
        grid: of the integers.
        damping: on the diagonal of the hessian, as a share of its mean.
        block: columns between two updates of all following ones.

    Returns:
        Codes int8 (outputs, inputs) and scales float32 (outputs, groups). The work is done in float64.
    """
    outputs, inputs = weight.shape
    group = grid.group or inputs
    updated = weight.detach().to(torch.float64, copy=True)
    zero = updated == 0
    factor = inverse_factor(hessian.to(updated.device), damping)
    codes = torch.zeros(outputs, inputs, dtype=torch.int8, device=updated.device)
    scales = torch.zeros(outputs, -(-inputs // group), device=updated.device)
    start = 0
    while start < inputs:
        # Blocks end at the borders of groups, so that a group's weights are up to date when its scale is computed.
        stop = min(start + block, inputs, (start // group + 1) * group)
        if start % group == 0:
            scales[:, start // group] = grid.scales(updated[:, start : start + group])
        scale = scales[:, start // group].double()
        _round_block(updated, codes, zero, scale, factor, slice(start, stop), grid)
        start = stop
    return codes, scales


def _round_block(
    weight: Tensor, codes: Tensor, zero: Tensor, scale: Tensor, factor: Tensor, block: slice, grid: IntegerGrid
) -> None:
    """Round the block's columns and spread their errors over all following ones, in place; the scale is (outputs,)."""
    errors = torch.zeros_like(weight[:, block])
    for column in range(block.start, block.stop):
        code = grid.codes(weight[:, column], scale)
        if not grid.offset:
            code.masked_fill_(zero[:, column], 0)
        error = (weight[:, column] - grid.values(code, scale)) / factor[column, column]
        weight[:, column : block.stop] -= torch.outer(error, factor[column, column : block.stop])
        codes[:, column] = code.to(torch.int8)
        errors[:, column - block.start] = error
    weight[:, block.stop :] -= errors @ factor[block, block.stop :]


@torch.no_grad()
def gptq_network(
    model: Transformer, calibration: Tensor, grid: IntegerGrid, damping: float = DAMPING
) -> dict[str, tuple[Tensor, Tensor]]:
    """Round the decoder layers' matrices in place; each layer's inputs are measured after the rounded layers before it.

    Args:
        model: a float network in evaluation mode; its matrices become the dequantized ones.
        calibration: (rows, tokens) int64, text on which inputs are measured.
        grid: of the integers.
        damping: as in `gptq`.

    Returns:
        Linear layer's name -> codes and scales, as in `gptq`; for low-rank layers both factors.
    """
    rounded: dict[str, tuple[Tensor, Tensor]] = {}
    for _, _, statistics in walk_layers(model, calibration):
        for name, inputs in statistics.items():
            weight = model.get_parameter(f"{name}.weight")
            rounded[name] = codes, scales = gptq(weight, inputs.gram, grid, damping)
            weight.copy_(dequantize(codes, scales, grid))
    return rounded
