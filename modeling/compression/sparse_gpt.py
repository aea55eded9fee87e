"""SparseGPT: kept weights compensate for pruned ones (Frantar and Alistarh 2023, 2301.00774).

The error of an output row w on inputs X is dw^T H dw with H = X X^T. From the first input to the last, the error of
each pruned weight is spread over the following inputs by the optimal brain surgeon's rule, with the rows of the
Cholesky factor of H^-1, which are those of the inverses of all the trailing parts of H (section 3.3).
"""

import torch
from torch import Tensor

from modeling.compression.calibration import damped_cholesky
from modeling.compression.sparsity import GroupSparsity, Sparsity, kept_largest, zeros_first

BLOCK = 128
"""Inputs between two choices of weights to prune (the paper's Bs, section 3.4)."""
DAMPING = 0.01
"""Added to H's diagonal, as a share of its mean (the paper's code)."""


def sparse_gpt(
    weight: Tensor, hessian: Tensor, sparsity: Sparsity, damping: float = DAMPING, block: int = BLOCK
) -> Tensor:
    """A pruned matrix with nearly the same outputs on the inputs of `hessian`.

    Args:
        weight: (outputs, inputs); zeros stay zero.
        hessian: (inputs, inputs), sum or mean of x x^T over the inputs; all zero if there are none.
        sparsity: groups, or the share of each block of inputs to prune, exact up to rounding; more than the share if
            there are more zeros already.
        damping: on the diagonal of the hessian, as a share of its mean.
        block: inputs for which a share counts.

    Returns:
        (outputs, inputs) in the dtype of `weight`; the work is done in float64.
    """
    if isinstance(sparsity, GroupSparsity):
        block = sparsity.group
    result = weight.detach().double()
    result = result.clone() if result is weight else result
    zero = weight == 0
    factor = inverse_factor(hessian, damping)
    for start in range(0, result.shape[1], block):
        columns = slice(start, start + block)
        deviations = factor.diagonal()[columns]
        scores = zeros_first((result[:, columns] / deviations).square(), weight[:, columns])
        kept = kept_largest(scores, sparsity) & ~zero[:, columns]
        drop_columns(result, kept, factor, start)
    return result.to(weight.dtype)


def drop_columns(weight: Tensor, kept: Tensor, factor: Tensor, start: int) -> None:
    """Set weights that are not kept to zero and spread their errors over the following inputs, in place.

    Args:
        weight: (outputs, inputs) float64.
        kept: (outputs, columns) bool, for the columns starting at `start`.
        factor: from `inverse_factor`.
        start: first of the columns.
    """
    stop = start + kept.shape[1]
    errors = torch.zeros_like(weight[:, start:stop])
    for column in range(start, stop):
        dropped = ~kept[:, column - start]
        error = weight[:, column] * dropped / factor[column, column]
        weight[:, column:stop] -= torch.outer(error, factor[column, column:stop])
        weight[:, column].masked_fill_(dropped, 0.0)
        errors[:, column - start] = error
    weight[:, stop:] -= errors @ factor[start:stop, stop:]


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """Upper triangular U (inputs, inputs) float64 with U^T U = (H + damping x mean diagonal)^-1."""
    upper: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(damped_cholesky(hessian, damping)), upper=True)
    return upper
