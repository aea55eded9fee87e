"""Vocabulary split over processes (Megatron-LM, Shoeybi et al. 2019, 1909.08053, section 3).

- `vocabulary_parallel_cross_entropy`: processes exchange three numbers per token and the gradient of the hidden states,
  but no logits
- `vocabulary_parallel_embedding`: they sum vectors, and each has the gradient of its own entries only
"""

from typing import Any

import torch
import torch.distributed as distributed
import torch.nn.functional as F
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

    Every process calls it with the same `hidden` and `targets`, and receives the same loss, the gradient of its own
    shard and the whole gradient of `hidden`. Shards may differ in size; together they are the vocabulary.

    Args:
        hidden: (..., width). Must require its gradient in all processes or in none.
        weight_shard: (entries, width), this process's rows of the head.
        first_entry: token id of its first row.
        targets: (...) int64, ids of the whole vocabulary. A target outside all shards makes the loss infinite.
        group: processes that share the vocabulary; None for all.
        z_loss: weight of the mean squared log-sum-exp.
        tiling: limits the logits in memory at a time.
    """
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1, 1)
    if not torch.is_grad_enabled() or not (hidden.requires_grad or weight_shard.requires_grad):
        return mean_loss(_combined_sums(Band.create(hidden, weight_shard, first_entry), targets, group, tiling), z_loss)
    arguments = (hidden, weight_shard, first_entry, targets, group, z_loss, tiling)
    return TrainingLoss(*_ParallelCrossEntropy.apply(*arguments))  # type: ignore[no-untyped-call]


def vocabulary_parallel_embedding(
    tokens: Tensor, table_shard: Tensor, first_entry: int, group: distributed.ProcessGroup | None
) -> Tensor:
    """Vectors of token ids from the tables of all processes of `group`; the same on each.

    A DTensor's own embedding has the gradient of the whole table on every process: 345 GB for 5 million entries of
    17,280 numbers.

    Args:
        tokens: (...) int64, the same on every process.
        table_shard: (entries, width), this process's rows of the table; may be none.
        first_entry: token id of its first row.
        group: processes that share the vocabulary; None for all.

    Returns:
        (..., width) in the dtype of the table.
    """
    rows = tokens - first_entry
    outside = (rows < 0) | (rows >= len(table_shard))
    if len(table_shard):
        own = F.embedding(rows.masked_fill(outside, 0), table_shard).masked_fill(outside.unsqueeze(-1), 0)
    else:
        own = table_shard.new_zeros(*tokens.shape, table_shard.shape[1]) + table_shard.sum()
    vectors: Tensor = _SumOfParts.apply(own, group)  # type: ignore[no-untyped-call]
    return vectors


class _SumOfParts(torch.autograd.Function):
    """Sum over processes, each of which computes the same with it: the gradient of each part is that of the sum."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, group: distributed.ProcessGroup | None) -> Tensor:
        total = part.clone()
        distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


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
        band = Band.create(hidden, weight_shard, first_entry)
        sums = _combined_sums(band, targets, group, tiling)
        gradients = band_gradients([band], targets, sums, z_loss, ctx.needs_input_grad[:2], tiling)
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
    """Row sums over all shards; a target's logit comes from the only shard that has it."""
    local = row_sums([band], targets, tiling)
    largest = torch.cat([local.maxima, local.target_logits], 1)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX, group)
    maxima, target_logits = largest[:, :1], largest[:, 1:]
    sums = local.sums * (local.maxima - maxima).exp()
    distributed.all_reduce(sums, group=group)
    return RowSums(maxima, sums, target_logits)
