"""Magnitude pruning of the decoder's matrices, with masks that recovery training keeps to.

Embedding, head, biases and norms are left alone: they are a small part of the products, and the embedding's rows
are not comparable with a layer's.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from modeling.transformer import Transformer


def cubic_sparsity(round: int, rounds: int, final: float) -> float:
    """Sparsity after round 1 ... rounds: much at first, little at the end (Zhu and Gupta 2017, 1710.01878, eq. 1)."""
    return final * (1 - (1 - round / rounds) ** 3)


def magnitude_masks(
    model: Transformer, sparsity: float, scope: Literal["matrix", "global"] = "matrix"
) -> dict[str, Tensor]:
    """Which weights to keep so that `sparsity` of them go, the smallest first (Han et al. 2015, 1506.02626).

    Weights that are zero already are among those that go, so that masks of rising sparsity lie in one another.

    Args:
        model: a float network.
        sparsity: share of the weights that go, 0 to 1; exact up to rounding to whole weights.
        scope: whether that share goes of each matrix or of all of them together.

    Returns:
        Parameter name -> bool tensor of its shape, True where the weight is kept.
    """
    matrices = linear_weights(model)
    if scope == "matrix":
        return {name: _largest(weight.abs(), sparsity) for name, weight in matrices.items()}
    kept = _largest(torch.cat([weight.abs().flatten() for weight in matrices.values()]), sparsity)
    parts = torch.split(kept, [weight.numel() for weight in matrices.values()])
    return {name: part.view(weight.shape) for (name, weight), part in zip(matrices.items(), parts, strict=True)}


def apply_masks(model: Transformer, masks: dict[str, Tensor]) -> None:
    """Set what the masks drop to zero, in place; called after each optimiser step of the recovery."""
    for name, weight in linear_weights(model).items():
        weight.masked_fill_(~masks[name], 0.0)


def linear_weights(model: Transformer) -> dict[str, Tensor]:
    """The decoder layers' matrices by parameter name, detached but sharing memory."""
    return {
        f"layers.{name}.weight": module.weight.detach()
        for name, module in model.layers.named_modules()
        if isinstance(module, nn.Linear)
    }


def _largest(magnitudes: Tensor, sparsity: float) -> Tensor:
    dropped = magnitudes.flatten().argsort(stable=True)[: round(sparsity * magnitudes.numel())]
    kept = torch.ones(magnitudes.numel(), dtype=torch.bool, device=magnitudes.device)
    kept[dropped] = False
    return kept.view(magnitudes.shape)
