"""Reformer's LSH attention: each token sees tokens with a similar hash (Kitaev et al. 2020, 2001.04451, section 2).

Keys are normalized queries (shared QK), so that a token and the tokens it attends to have similar hashes. Tokens are
sorted by bucket and position and cut into chunks; a chunk sees itself and the chunk before it. Further rounds of
hashing find pairs that one round has missed. A token sees itself only if it sees nothing else: its own score would
dominate.

- `LshAttention`: replaces an `Attention`
- `LshPlan`, `lsh_plan`: the sorted order and its chunks; `lsh_attention`: the attention over them

Beyond the paper: a learned factor for each head on the normalized keys, with which a trained layer keeps its
temperature; and rotary positions, which rotate queries and keys before they are hashed.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention.key_value_cache import CacheStep, CacheUse, LayerCache
from modeling.attention.multi_head import LayerContext
from modeling.attention.tiled_attention import HIDDEN
from modeling.documents import Documents
from modeling.rotary import rotate

SELF_PENALTY = 1e5
"""Subtracted from a token's score with itself (2001.04451, appendix A)."""


@dataclass(frozen=True)
class LshPlan:
    """Chunks of each round, for `tokens` padded to a multiple of `chunk`."""

    order: Tensor
    """(batch, heads, rounds, padded) int64: the token at each index of the sorted order."""
    rank: Tensor
    """Its inverse: each token's index in the sorted order."""
    chunk: int

    @property
    def chunks(self) -> Tensor:
        """(batch, heads, rounds, padded): the chunk of each token."""
        return self.rank // self.chunk

    def visible(self, tokens: int, starts: Tensor | None = None) -> Tensor:
        """(batch, heads, tokens, tokens) bool: pairs that see each other in some round, for tests and figures."""
        ids = self.chunks[..., :tokens]
        distance = ids[..., :, None] - ids[..., None, :]
        positions = torch.arange(tokens, device=ids.device)
        seen = ((distance == 0) | (distance == 1)).any(2) & (positions <= positions[:, None])
        return seen if starts is None else seen & (positions >= starts[..., None])[:, None]


def lsh_plan(queries: Tensor, rounds: int, bucket_size: int, seed: int) -> LshPlan:
    """Hash by random rotations: the bucket is the direction, among all and their opposites, nearest to the query.

    Args:
        queries: (batch, heads, tokens, head_width).
        rounds: of hashing.
        bucket_size: tokens per bucket on average; a chunk is twice as long, so that few buckets exceed it.
        seed: of the rotations, which are the same in every call.
    """
    tokens, head_width = queries.shape[2:]
    chunk = min(2 * bucket_size, tokens)
    padded = tokens + -tokens % chunk
    half = max(1, math.ceil(padded / bucket_size / 2))
    generator = torch.Generator().manual_seed(seed)
    rotations = torch.randn(rounds, head_width, half, generator=generator, dtype=torch.float64).to(queries)
    with torch.no_grad():
        rotated = queries[:, :, None] @ rotations
        buckets = torch.cat((rotated, -rotated), dim=-1).argmax(-1)
        # Padding sorts after all tokens.
        buckets = F.pad(buckets, (0, padded - tokens), value=2 * half)
        order = (buckets * padded + torch.arange(padded, device=queries.device)).argsort(-1)
        rank = torch.empty_like(order).scatter_(-1, order, torch.arange(padded, device=order.device).expand_as(order))
    return LshPlan(order, rank, chunk)


def lsh_attention(
    queries: Tensor, keys: Tensor, values: Tensor, plan: LshPlan, scale: float, starts: Tensor | None = None
) -> Tensor:
    """Softmax attention over the keys seen in any round, each counted once (2001.04451, equations 4 to 6 and A).

    Args:
        queries: (batch, heads, tokens, head_width).
        keys: the same shape.
        values: the same shape.
        plan: of the queries.
        scale: of the scores.
        starts: (batch, tokens) int64, the first token that each may see; None if all tokens before it.

    Returns:
        (batch, heads, tokens, head_width).
    """
    tokens, padded = queries.shape[2], plan.order.shape[-1]
    queries, keys, values = (F.pad(part, (0, 0, 0, padded - tokens)) for part in (queries, keys, values))
    if starts is not None:
        starts = F.pad(starts, (0, padded - tokens))
    means, log_sums = [], []
    for index in range(plan.order.shape[2]):
        mean, log_sum = _attend_in_round(queries, keys, values, plan, index, scale, starts)
        rank = plan.rank[:, :, index]
        means.append(mean.gather(2, rank[..., None].expand_as(mean)))
        log_sums.append(log_sum.gather(2, rank))
    shares = torch.stack(log_sums).softmax(0).to(values.dtype)
    return (torch.stack(means) * shares[..., None]).sum(0)[:, :, :tokens]


def _attend_in_round(
    queries: Tensor, keys: Tensor, values: Tensor, plan: LshPlan, index: int, scale: float, starts: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Means (batch, heads, padded, head_width) and log-sum-exps (batch, heads, padded), in the sorted order."""
    order = plan.order[:, :, index]
    positions = torch.unflatten(order, 2, (-1, plan.chunk))
    key_positions = _with_previous(positions, fill=order.shape[-1])  # after all tokens: not seen
    sorted_queries, sorted_keys, sorted_values = (
        torch.unflatten(part.gather(2, order[..., None].expand_as(part)), 2, (-1, plan.chunk))
        for part in (queries, keys, values)
    )
    seen = key_positions[..., None, :] <= positions[..., None]
    if starts is not None:
        first = starts[:, None].expand(-1, order.shape[1], -1).gather(2, order)
        seen &= key_positions[..., None, :] >= torch.unflatten(first, 2, (-1, plan.chunk))[..., None]
    scores = _scores(sorted_queries, _with_previous(sorted_keys), scale)
    scores = scores - _times_seen(plan, positions, key_positions).to(scores.dtype).log()
    scores = scores - SELF_PENALTY * (key_positions[..., None, :] == positions[..., None])
    scores = scores.masked_fill(~seen, HIDDEN)
    log_sum = scores.logsumexp(-1)
    mean = (scores - log_sum[..., None]).exp().to(values.dtype) @ _with_previous(sorted_values)
    return mean.flatten(2, 3), log_sum.flatten(2, 3)


def _scores(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    scores = queries @ keys.mT
    return scores.to(torch.promote_types(scores.dtype, torch.float32)) * scale


def _times_seen(plan: LshPlan, positions: Tensor, key_positions: Tensor) -> Tensor:
    """Number of rounds in which each pair is seen, at least 1: (batch, heads, chunks, chunk, 2 chunk) int64."""
    times = torch.zeros((), dtype=torch.int64, device=positions.device)
    padded = plan.order.shape[-1]
    for ids in plan.chunks.unbind(2):
        query_chunks = ids.gather(2, positions.flatten(2)).view(positions.shape)
        key_chunks = ids.gather(2, key_positions.clamp(max=padded - 1).flatten(2)).view(key_positions.shape)
        distance = query_chunks[..., None] - key_chunks[..., None, :]
        times = times + ((distance == 0) | (distance == 1)).long()
    return times.clamp_min(1)


def _with_previous(chunks: Tensor, fill: int = 0) -> Tensor:
    """(batch, heads, chunks, chunk, ...) -> (..., 2 chunk, ...), each after its predecessor, the first after `fill`."""
    first = torch.full_like(chunks[:, :, :1], fill)
    return torch.cat((torch.cat((first, chunks[:, :, :-1]), dim=2), chunks), dim=3)


class LshAttention(nn.Module):
    """Replacement of an `Attention` over all earlier tokens.

    New tokens see all cached tokens: for one query, hashing would save nothing. Decode is therefore the attention that
    the hash approximates.
    """

    def __init__(
        self, width: int, heads: int, head_width: int, rounds: int, bucket_size: int, seed: int, scale: float
    ) -> None:
        """Allocate the tensors.

        Args:
            width: numbers per token.
            heads: of the layer, which may have lost some.
            head_width: numbers per head.
            rounds: of hashing.
            bucket_size: tokens per bucket on average; a token sees up to 4 times as many per round.
            seed: of the random rotations.
            scale: of the scores.
        """
        super().__init__()
        self._sizes = {"width": width, "heads": heads, "head_width": head_width}
        self.head_width, self.rounds, self.bucket_size = head_width, rounds, bucket_size
        self.seed, self.scale = seed, scale
        self.shared_key_value = nn.Linear(width, 2 * heads * head_width)
        self.output = nn.Linear(heads * head_width, width)
        self.key_norms = nn.Parameter(torch.full((heads,), math.sqrt(head_width)))

    def forward(self, hidden: Tensor, context: LayerContext, cache: CacheUse | None = None) -> Tensor:
        """As `Attention.forward`: (batch, tokens, width), normed -> the same, to be added to the residual stream."""
        cosines, sines = context.rotation
        projected = self.shared_key_value(hidden).unflatten(-1, (-1, 2, self.head_width))
        projected = rotate(projected, (cosines[..., ::2, :], sines[..., ::2, :]))
        queries, values = projected.transpose(1, 2).unbind(3)
        keys = F.normalize(queries, dim=-1) * self.key_norms[:, None, None]
        if cache is not None and isinstance(cache.step, CacheStep):
            mixed = self._after_cache(queries, keys, values, cache.layer, cache.step)
        else:
            if cache is not None:
                cache.layer.write(0, _entries(keys, values), cache.step[0])  # type: ignore[index]
            plan = lsh_plan(queries.detach(), self.rounds, self.bucket_size, self.seed)
            mixed = lsh_attention(queries, keys, values, plan, self.scale, _starts(context.documents, hidden))
        return self.output(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def sizes(self) -> dict[str, Any]:
        """As in `modeling.layers.linear.Replacement`."""
        hashing = {"rounds": self.rounds, "bucket_size": self.bucket_size, "seed": self.seed, "scale": self.scale}
        return {**self._sizes, **hashing}

    def mixing_products(self, tokens: int) -> int:
        """Multiply-accumulates per token of a row of `tokens`, with hashing, without projections."""
        chunk = min(2 * self.bucket_size, tokens)
        half = max(1, math.ceil((tokens + -tokens % chunk) / self.bucket_size / 2))
        return int(self._sizes["heads"] * self.rounds * self.head_width * (half + 4 * chunk))

    def _after_cache(self, queries: Tensor, keys: Tensor, values: Tensor, cache: LayerCache, step: CacheStep) -> Tensor:
        cache.write(0, _entries(keys, values), step.tokens)
        all_keys, all_values = cache.keys_and_values(step.used).transpose(1, 2).unbind(3)
        scores = _scores(queries, all_keys, self.scale)
        if step.mask is not None:
            scores = scores + step.mask
        slots = step.tokens[1]
        slots = torch.arange(slots.start, slots.stop, device=scores.device)[None] if isinstance(slots, slice) else slots
        is_self = slots[:, None, :, None] == torch.arange(step.used, device=scores.device)
        return (scores - SELF_PENALTY * is_self).softmax(-1).to(values.dtype) @ all_values


def _entries(keys: Tensor, values: Tensor) -> Tensor:
    """(batch, heads, tokens, head_width) each -> (batch, tokens, heads, 2, head_width), the layout of a cache."""
    return torch.stack((keys, values), dim=3).transpose(1, 2)


def _starts(documents: Documents | None, like: Tensor) -> Tensor | None:
    return None if documents is None else torch.from_numpy(documents.starts).to(like.device)
