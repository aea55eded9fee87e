"""Patterns of zeros in a matrix."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GroupSparsity:
    """N:M sparsity: N of each M consecutive inputs of an output are kept (Mishra et al. 2021, 2104.08378: 2:4)."""

    kept: int
    """N, 0 to M."""
    group: int
    """M, a divisor of the matrix's inputs."""

    def __post_init__(self) -> None:
        assert 0 <= self.kept <= self.group and self.group > 0


Sparsity = float | GroupSparsity
"""Share of the weights to prune, 0 to 1, unstructured; or groups."""


def kept_largest(scores: Tensor, sparsity: Sparsity, per_row: bool = False) -> Tensor:
    """Mask of the weights to keep, those of the largest scores; of equal scores the last.

    Args:
        scores: (outputs, inputs).
        sparsity: a share counts for the whole matrix, exact up to rounding to whole weights.
        per_row: a share counts for each row.

    Returns:
        (outputs, inputs) bool.
    """
    if isinstance(sparsity, GroupSparsity):
        size, dropped = sparsity.group, sparsity.group - sparsity.kept
    else:
        size = scores.shape[1] if per_row else scores.numel()
        dropped = round(sparsity * size)
    grouped = scores.reshape(-1, size)
    smallest = grouped.argsort(dim=1, stable=True)[:, :dropped]
    return torch.ones_like(grouped, dtype=torch.bool).scatter_(1, smallest, False).view(scores.shape)


def zeros_first(scores: Tensor, weight: Tensor) -> Tensor:
    """Scores, none below 0, changed so that weights that are zero already are pruned before all others."""
    return scores.masked_fill(weight == 0, -1.0)
