"""The loss where each process has a slice of the vocabulary (Megatron-LM, Shoeybi et al. 2019, 1909.08053, section 3).

Three numbers per token cross between the processes, and the gradient of the hidden states; logits never do.
"""

from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.autograd.function import once_differentiable

from modeling.loss.cross_entropy import TrainingLoss, mean_loss, scaled_gradients
from modeling.loss.logit_tiles import TILING, Band, RowSums, Tiling, band_gradients, row_sums


def vocabulary_parallel_cross_entropy(
    hidden: Tensor,
    weight_shard: Tensor,
    first_entry: int,
    targets: Tensor,
    group: distributed.ProcessGroup | None,
    z_loss: float = 0.0,
    tiling: Tiling = TILING,
) -> TrainingLoss:
    """`modeling.loss.cross_entropy.linear_cross_entropy` over the weights of all processes of `group`.

    Every process calls it with the same `hidden` and `targets`, and gets the same loss, the gradient of its own shard
    and the whole gradient of `hidden`. Shards may differ in size; together they are the vocabulary.

    Args:
        hidden: (..., width). Must want its gradient in all processes or in none.
        weight_shard: (entries, width), this process's rows of the head.
        first_entry: token id of its first row.
        targets: (...) int64, ids over the whole vocabulary. One that is in no shard makes the loss infinite.
        group: the processes that share the vocabulary; None for all.
        z_loss: weight of the mean squared log-sum-exp.
        tiling: bounds the logits that exist at one time.
    """
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1, 1)
    if not torch.is_grad_enabled() or not (hidden.requires_grad or weight_shard.requires_grad):
        return mean_loss(_combined_sums(Band.of(hidden, weight_shard, first_entry), targets, group, tiling), z_loss)
    arguments = (hidden, weight_shard, first_entry, targets, group, z_loss, tiling)
    return TrainingLoss(*_ParallelCrossEntropy.apply(*arguments))  # type: ignore[no-untyped-call]


class _ParallelCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight_shard: Tensor,
        first_entry: int,
        targets: Tensor,
        group: distributed.ProcessGroup | None,
        z_loss: float,
        tiling: Tiling,
    ) -> tuple[Tensor, Tensor]:
        band = Band.of(hidden, weight_shard, first_entry)
        sums = _combined_sums(band, targets, group, tiling)
        wanted = ctx.needs_input_grad[:2]
        gradients = band_gradients([band], targets, sums, z_loss, wanted, tiling)
        if gradients[0] is not None:
            distributed.all_reduce(gradients[0], group=group)
        ctx.save_for_backward(*gradients)
        loss = mean_loss(sums, z_loss)
        ctx.mark_non_differentiable(loss.cross_entropy)
        return loss.total, loss.cross_entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return *scaled_gradients(ctx, gradient), None, None, None, None, None


def _combined_sums(band: Band, targets: Tensor, group: distributed.ProcessGroup | None, tiling: Tiling) -> RowSums:
    """The shards' sums over the largest logit of all; a target's logit comes from the one shard that has it."""
    own = row_sums([band], targets, tiling)
    largest = torch.cat([own.maxima, own.picked], 1)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX, group)
    maxima, picked = largest[:, :1], largest[:, 1:]
    sums = own.sums * (own.maxima - maxima).exp()
    distributed.all_reduce(sums, group=group)
    return RowSums(maxima, sums, picked)
