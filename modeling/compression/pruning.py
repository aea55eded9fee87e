"""Pruning of the decoder's matrices: which weights become zero, and masks that recovery training keeps to.

- `prune`: once, by one of three criteria; `magnitude_masks`: the one that needs no text
- `zero_masks`, `apply_masks`: what is zero stays zero
- `cubic_sparsity`: how much goes in which round

Embedding, head, biases and norms are left alone: they are a small part of the products, and the embedding's rows
are not comparable with a layer's. Both factors of a low-rank layer are pruned as matrices of their own.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from data_schemas.errors import ConfigError
from modeling.compression.calibration import InputStatistics, walk_layers
from modeling.compression.sparse_gpt import sparse_gpt
from modeling.compression.sparsity import GroupSparsity, Sparsity, kept_largest, zeros_first
from modeling.transformer import Transformer

Criterion = Literal["magnitude", "wanda", "sparsegpt"]


def cubic_sparsity(round: int, rounds: int, final: float) -> float:
    """Sparsity after round 1 ... rounds: much at first, little at the end (Zhu and Gupta 2017, 1710.01878, eq. 1)."""
    return final * (1 - (1 - round / rounds) ** 3)


def prune(
    model: Transformer, sparsity: Sparsity, criterion: Criterion, calibration: Tensor | None = None
) -> dict[str, Tensor]:
    """Set weights to zero, in place.

    Weights that are zero already are among those that go, so that what rising sparsities leave lies in one another.

    Args:
        model: a float network in evaluation mode.
        sparsity: share of each matrix that goes, or groups.
        criterion: what goes first: the smallest weights (`magnitude_masks`); the smallest |weight| x norm of its input
            within each output row (Wanda, Sun et al. 2023, 2306.11695, section 3); or what costs least after the other
            weights have made up for it, as they then do (`modeling.compression.sparse_gpt`).
        calibration: (rows, tokens) int64, text that inputs are measured on; for all criteria but magnitude.

    Returns:
        Parameter name -> bool tensor of its shape, True where the weight is kept.

    Raises:
        ConfigError: where groups do not divide a matrix's inputs.
    """
    check_groups(model, sparsity)
    if criterion == "magnitude":
        masks = magnitude_masks(model, sparsity)
        apply_masks(model, masks)
        return masks
    assert calibration is not None, f"{criterion} looks at activations"
    masks = {}
    for _, _, statistics in walk_layers(model, calibration):
        for name, one in statistics.items():
            weight = model.get_parameter(f"{name}.weight").detach()
            if criterion == "wanda":
                kept = wanda_mask(weight, one, sparsity)
                weight.masked_fill_(~kept, 0.0)
            else:
                weight.copy_(sparse_gpt(weight, one.gram, sparsity))
                kept = weight != 0
            masks[f"{name}.weight"] = kept
    return masks


def magnitude_masks(model: Transformer, sparsity: Sparsity) -> dict[str, Tensor]:
    """Which weights to keep so that `sparsity` of each matrix go, the smallest first (Han et al. 2015, 1506.02626).

    The share is each matrix's, not that of all together, which would empty those with small weights first: pruned to
    80 % in three rounds with recovery, a 4-layer byte model had 2.15 against 2.32 bits per byte.
    Weights that are zero already are among those that go, so that masks of rising sparsity lie in one another.

    Args:
        model: a float network.
        sparsity: share of the weights that go, 0 to 1, exact up to rounding to whole weights; or groups.

    Returns:
        Parameter name -> bool tensor of its shape, True where the weight is kept.
    """
    return {name: kept_largest(weight.abs(), sparsity) for name, weight in linear_weights(model).items()}


def wanda_mask(weight: Tensor, inputs: InputStatistics, sparsity: Sparsity) -> Tensor:
    """Which weights of (outputs, inputs) to keep by |weight| x norm of its input; by |weight| where there is no input.

    Rows lose the same share each: a weight is compared with those it adds up with (2306.11695, section 3).
    """
    norms = inputs.norms if inputs.rows else torch.ones_like(inputs.norms)
    scores = weight.abs() * norms.to(weight.dtype)
    return kept_largest(zeros_first(scores, weight), sparsity, per_row=True)


def apply_masks(model: Transformer, masks: dict[str, Tensor]) -> None:
    """Set what the masks drop to zero, in place; called after each optimizer step of the recovery."""
    for name, weight in linear_weights(model).items():
        if name in masks:
            weight.masked_fill_(~masks[name], 0.0)


def zero_masks(model: Transformer) -> dict[str, Tensor]:
    """Masks of what earlier passes set to zero: a matrix's zeros are their own record, in files too.

    Returns:
        Parameter name -> bool tensor of its shape, True where the weight is not zero; only matrices that have zeros.
    """
    masks = {name: weight != 0 for name, weight in linear_weights(model).items()}
    return {name: kept for name, kept in masks.items() if not kept.all()}


def linear_weights(model: Transformer) -> dict[str, Tensor]:
    """The decoder layers' matrices by parameter name, detached but sharing memory; of low-rank layers both factors."""
    return {
        f"layers.{name}.weight": module.weight.detach()
        for name, module in model.layers.named_modules()
        if isinstance(module, nn.Linear)
    }


def check_groups(model: Transformer, sparsity: Sparsity) -> None:
    """Groups must divide the inputs of every matrix.

    Raises:
        ConfigError: where they do not.
    """
    if not isinstance(sparsity, GroupSparsity):
        return
    for name, weight in linear_weights(model).items():
        if weight.shape[1] % sparsity.group:
            fitting = [size for size in range(2, weight.shape[1] + 1) if weight.shape[1] % size == 0]
            raise ConfigError(
                f"prune.pattern asks for groups of {sparsity.group}, which do not divide the {weight.shape[1]} inputs "
                f"of {name}; M of N:M can be {', '.join(map(str, fitting[:12]))}, or take the pattern 'unstructured'"
            )
