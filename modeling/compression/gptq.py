"""GPTQ: each weight is rounded so that what was rounded before is made up for (Frantar et al. 2022, 2210.17323).

The error of an output row w on inputs X is dw^T H dw with H = X X^T. Columns are rounded from first to last; the error
of each is spread over the columns that follow, by the rows of the Cholesky factor of H^-1 (section 3.3). It is the
method of `modeling.compression.sparse_gpt` with rounding in the place of dropping, and a weight that is zero stays zero
here.

- `gptq`: one matrix; `gptq_network`: the decoder's, one layer after the other
"""

import torch
from torch import Tensor

from modeling.compression.calibration import walk_layers
from modeling.compression.sparse_gpt import inverse_factor
from modeling.layers.integer_grid import IntegerGrid, dequantize
from modeling.transformer import Transformer

BLOCK = 128
"""Columns between two updates of all that follow (section 3.3, step 2)."""
DAMPING = 0.01
"""Added to H's diagonal, as a share of its mean (section 3.3, step 3)."""


def gptq(
    weight: Tensor, hessian: Tensor, grid: IntegerGrid, damping: float = DAMPING, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """Round a matrix so that, on the inputs that `hessian` is of, its outputs change little.

    A group's scale is that of its weights as they are when their turn comes.

    Args:
        weight: (outputs, inputs); what is zero stays zero where the grid has a zero.
        hessian: (inputs, inputs), sum or mean of x x^T over the inputs; all zero where nothing is known of them, which
            rounds to the nearest.
        grid: of the integers.
        damping: on the diagonal of the hessian, as a share of its mean.
        block: columns between two updates of all that follow.

    Returns:
        Codes int8 (outputs, inputs) and scales float32 (outputs, groups). The work is done in float64.
    """
    outputs, inputs = weight.shape
    group = grid.group or inputs
    rest = weight.detach().to(torch.float64, copy=True)
    zero = rest == 0
    factor = inverse_factor(hessian.to(rest.device), damping)
    codes = torch.zeros(outputs, inputs, dtype=torch.int8, device=rest.device)
    scales = torch.zeros(outputs, -(-inputs // group), device=rest.device)
    start = 0
    while start < inputs:
        # Blocks end where groups do, so that a group's weights are up to date when its scale is found.
        stop = min(start + block, inputs, (start // group + 1) * group)
        if start % group == 0:
            scales[:, start // group] = grid.scales(rest[:, start : start + group])
        scale = scales[:, start // group].double()
        _round_block(rest, codes, zero, scale, factor, slice(start, stop), grid)
        start = stop
    return codes, scales


def _round_block(
    rest: Tensor, codes: Tensor, zero: Tensor, scale: Tensor, factor: Tensor, block: slice, grid: IntegerGrid
) -> None:
    """Round the block's columns and spread their errors over all that follow, in place; the scale is (outputs,)."""
    errors = torch.zeros_like(rest[:, block])
    for column in range(block.start, block.stop):
        code = grid.codes(rest[:, column], scale)
        if not grid.offset:
            code.masked_fill_(zero[:, column], 0)
        error = (rest[:, column] - grid.values(code, scale)) / factor[column, column]
        rest[:, column : block.stop] -= torch.outer(error, factor[column, column : block.stop])
        codes[:, column] = code.to(torch.int8)
        errors[:, column - block.start] = error
    rest[:, block.stop :] -= errors @ factor[block, block.stop :]


@torch.no_grad()
def gptq_network(
    model: Transformer, calibration: Tensor, grid: IntegerGrid, damping: float = DAMPING
) -> dict[str, tuple[Tensor, Tensor]]:
    """Round the decoder layers' matrices in place; a layer is measured behind the rounded ones before it.

    Args:
        model: a float network in evaluation mode; its matrices become the floats that the codes stand for.
        calibration: (rows, tokens) int64, text that inputs are measured on.
        grid: of the integers.
        damping: as in `gptq`.

    Returns:
        Linear layer's name -> codes and scales, as in `gptq`; of low-rank layers both factors.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for _, _, statistics in walk_layers(model, calibration):
        for name, one in statistics.items():
            weight = model.get_parameter(f"{name}.weight")
            found[name] = codes, scales = gptq(weight, one.gram, grid, damping)
            weight.copy_(dequantize(codes, scales, grid))
    return found
