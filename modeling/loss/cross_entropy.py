"""Cross-entropy of the next token, in tiles of logits, so that logits of all tokens are never held.

- `next_token_loss`: what training minimizes
- `chunked_token_losses`: nats of every token, for evaluation
- `linear_cross_entropy`: head and loss in one, with the gradients of both
- `mean_loss`, `scaled_gradients`: its ends, which `modeling.loss.vocabulary_parallel` shares
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from modeling.loss.logit_tiles import (
    TILING,
    Band,
    RowSums,
    Tiling,
    band_gradients,
    row_sums,
    softmax_ready,
    sums_and_gradients,
)


class TrainingLoss(NamedTuple):
    """Scalars in nats per token; float32, or float64 if the model is."""

    total: Tensor
    """What is minimized: mean cross-entropy + z_loss x mean squared log-sum-exp of the logits, which keeps them from
    drifting (PaLM, Chowdhery et al. 2022, 2204.02311, section 5; ST-MoE, Zoph et al. 2022, 2202.08906, section 3)."""
    cross_entropy: Tensor
    """Mean cross-entropy alone, without gradient."""


def next_token_loss(model: nn.Module, tokens: Tensor, z_loss: float = 0.0) -> TrainingLoss:
    """Loss of each token after the first.

    Args:
        model: a `Transformer`, or one wrapped for data parallelism.
        tokens: (batch, context + 1) int64.
        z_loss: weight of the mean squared log-sum-exp.
    """
    return model(tokens[:, :-1], targets=tokens[:, 1:], z_loss=z_loss)  # type: ignore[no-any-return]


def chunked_token_losses(hidden: Tensor, head: nn.Module, targets: Tensor, tiling: Tiling = TILING) -> Tensor:
    """-log softmax(head(hidden))[target] of each row.

    Args:
        hidden: (..., width).
        head: (rows, width) -> logits (rows, vocabulary).
        targets: (...) int64.
        tiling: bounds the rows that `head` gets at one time.

    Returns:
        (...) float32 or float64.
    """
    rows, row_targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    chunk_rows = tiling.whole_rows(head(rows[:1]).shape[-1])
    chunks = zip(torch.split(rows, chunk_rows), torch.split(row_targets, chunk_rows), strict=True)
    losses = [F.cross_entropy(softmax_ready(head(chunk)), picked, reduction="none") for chunk, picked in chunks]
    return torch.cat(losses).view(targets.shape)


def linear_cross_entropy(
    bands: Sequence[tuple[Tensor, Tensor]], targets: Tensor, z_loss: float = 0.0, tiling: Tiling = TILING
) -> TrainingLoss:
    """Loss of softmax(logits) at `targets`, where the logits are the bands' hidden weight^T side by side.

    The gradients are computed in tiles together with the loss, as Liger Kernel does (Hsu et al. 2024, 2410.10989, 3.2),
    so that no logits are kept. A tile spans the vocabulary where it can. Where the vocabulary is too large, it is tiled
    as well, and logits are computed twice: for the softmax's denominators, then for the gradients, as Cut Cross-Entropy
    does (Wijmans et al. 2024, 2411.09009). Either way the gradients of `bands` are the largest things made.

    Under autocast the products are in its dtype; the softmax and all sums are at least float32.

    Args:
        bands: (hidden (..., width), weight (entries, width)) of each band of the vocabulary, in the order of the token
            ids; one for a plain head. Differentiable in each.
        targets: (...) int64. One that is in no band makes the loss infinite.
        z_loss: weight of the mean squared log-sum-exp.
        tiling: bounds the logits that exist at one time.
    """
    tensors = [tensor for hidden, weight in bands for tensor in (hidden.reshape(-1, hidden.shape[-1]), weight)]
    targets = targets.reshape(-1, 1)
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
        return mean_loss(row_sums(_bands(tensors), targets, tiling), z_loss)
    return TrainingLoss(*_LinearCrossEntropy.apply(targets, z_loss, tiling, *tensors))  # type: ignore[no-untyped-call]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, targets: Tensor, z_loss: float, tiling: Tiling, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        bands, wanted = _bands(tensors), ctx.needs_input_grad[3:]
        if tiling.one_pass(sum(len(band.weight) for band in bands)):
            sums, gradients = sums_and_gradients(bands, targets, z_loss, wanted, tiling)
        else:
            sums = row_sums(bands, targets, tiling)
            gradients = band_gradients(bands, targets, sums, z_loss, wanted, tiling)
        ctx.save_for_backward(*gradients)
        loss = mean_loss(sums, z_loss)
        ctx.mark_non_differentiable(loss.cross_entropy)
        return loss.total, loss.cross_entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *scaled_gradients(ctx, gradient)


def scaled_gradients(ctx: Any, gradient: Tensor) -> list[Tensor | None]:
    """What `ctx` saved, times `gradient`; in its own memory where this is the graph's last use.

    A second copy of a gradient (vocabulary x width) would be the largest tensor of the step: 1 GiB for 2^20 entries of
    width 256. torch frees what is saved right after this backward unless the graph is kept.
    """
    if torch._C._autograd._get_current_graph_task_keep_graph():
        return [None if saved is None else saved * gradient for saved in ctx.saved_tensors]
    return [None if saved is None else saved.mul_(gradient) for saved in ctx.saved_tensors]


def mean_loss(sums: RowSums, z_loss: float) -> TrainingLoss:
    """The means over rows."""
    # The difference of two logits first: adding the small logarithm to a large one would round it away.
    cross_entropy = (sums.maxima - sums.picked + sums.sums.log()).mean()
    return TrainingLoss(cross_entropy + z_loss * sums.log_sum_exp.square().mean(), cross_entropy)


def _bands(tensors: Sequence[Tensor]) -> list[Band]:
    bands, first_entry = [], 0
    for hidden, weight in zip(tensors[::2], tensors[1::2], strict=True):
        bands.append(Band.of(hidden, weight, first_entry))
        first_entry += len(weight)
    return bands
