"""Next-token cross-entropy in tiles, without materializing the logits of all tokens.

- `next_token_loss`: the training loss
- `chunked_token_losses`: nats per token, for evaluation
- `linear_cross_entropy`: fused head and loss, with the gradients of both
- `mean_loss`, `scaled_gradients`: parts that `modeling.loss.vocabulary_parallel` shares
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
    """Training objective: mean cross-entropy + z_loss x mean squared log-sum-exp of the logits, which prevents logit
    drift (PaLM, Chowdhery et al. 2022, 2204.02311, section 5; ST-MoE, Zoph et al. 2022, 2202.08906, section 3)."""
    cross_entropy: Tensor
    """Mean cross-entropy, without gradient."""


def next_token_loss(model: nn.Module, tokens: Tensor, z_loss: float = 0.0) -> TrainingLoss:
    """Mean loss over all tokens after the first.

    Args:
        model: a `Transformer`, wrapped for data parallelism or not.
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
        tiling: limits the rows per call of `head`.

    Returns:
        (...) float32 or float64.
    """
    rows, row_targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    chunk_rows = tiling.whole_rows(head(rows[:1]).shape[-1])
    chunks = zip(torch.split(rows, chunk_rows), torch.split(row_targets, chunk_rows), strict=True)
    losses = [F.cross_entropy(softmax_ready(head(chunk)), tokens, reduction="none") for chunk, tokens in chunks]
    return torch.cat(losses).view(targets.shape)


def linear_cross_entropy(
    bands: Sequence[tuple[Tensor, Tensor]], targets: Tensor, z_loss: float = 0.0, tiling: Tiling = TILING
) -> TrainingLoss:
    """Loss of softmax(logits) at `targets`, with the logits hidden weight^T of all bands concatenated.

    The gradients are computed in tiles together with the loss, as in Liger Kernel (Hsu et al. 2024, 2410.10989, section
    3.2), so that no logits are kept. A tile spans the vocabulary if possible. A too large vocabulary is tiled as well,
    and logits are computed twice: for the softmax's denominators, then for the gradients, as in Cut Cross-Entropy
    (Wijmans et al. 2024, 2411.09009). In both cases the gradients of `bands` are the largest new tensors.

    Under autocast the products are in its dtype; the softmax and all sums are at least float32.

    Args:
        bands: (hidden (..., width), weight (entries, width)) of each band of the vocabulary, in the order of the token
            ids; a single one for a plain head. Differentiable in each.
        targets: (...) int64. A target outside all bands makes the loss infinite.
        z_loss: weight of the mean squared log-sum-exp.
        tiling: limits the logits in memory at a time.
    """
    tensors = [tensor for hidden, weight in bands for tensor in (hidden.reshape(-1, hidden.shape[-1]), weight)]
    targets = targets.reshape(-1, 1)
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
        return mean_loss(row_sums(_bands(tensors), targets, tiling), z_loss)
    return TrainingLoss(*_LinearCrossEntropy.apply(targets, z_loss, tiling, *tensors))  # type: ignore[no-untyped-call]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, targets: Tensor, z_loss: float, tiling: Tiling, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        bands, needs_gradient = _bands(tensors), ctx.needs_input_grad[3:]
        if tiling.one_pass(sum(len(band.weight) for band in bands)):
            sums, gradients = sums_and_gradients(bands, targets, z_loss, needs_gradient, tiling)
        else:
            sums = row_sums(bands, targets, tiling)
            gradients = band_gradients(bands, targets, sums, z_loss, needs_gradient, tiling)
        ctx.save_for_backward(*gradients)
        loss = mean_loss(sums, z_loss)
        ctx.mark_non_differentiable(loss.cross_entropy)
        return loss.total, loss.cross_entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *scaled_gradients(ctx, gradient)


def scaled_gradients(ctx: Any, gradient: Tensor) -> list[Tensor | None]:
    """Saved gradients of `ctx` times `gradient`; in place if the graph is not kept.

    A second copy of a gradient (vocabulary x width) would be the largest tensor of the step: 1 GiB for 2^20 entries of
    width 256. torch frees saved tensors right after this backward unless the graph is kept.
    """
    if torch._C._autograd._get_current_graph_task_keep_graph():
        return [None if saved is None else saved * gradient for saved in ctx.saved_tensors]
    return [None if saved is None else saved.mul_(gradient) for saved in ctx.saved_tensors]


def mean_loss(sums: RowSums, z_loss: float) -> TrainingLoss:
    """Mean loss over rows."""
    # The difference of two logits first: adding the small logarithm to a large logit would round it away.
    cross_entropy = (sums.maxima - sums.target_logits + sums.sums.log()).mean()
    return TrainingLoss(cross_entropy + z_loss * sums.log_sum_exp.square().mean(), cross_entropy)


def _bands(tensors: Sequence[Tensor]) -> list[Band]:
    bands, first_entry = [], 0
    for hidden, weight in zip(tensors[::2], tensors[1::2], strict=True):
        bands.append(Band.create(hidden, weight, first_entry))
        first_entry += len(weight)
    return bands
