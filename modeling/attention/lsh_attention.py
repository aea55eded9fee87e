"""Reformer's LSH attention: each token sees tokens with an equal hash (Kitaev et al. 2020, 2001.04451, section 2).

Keys are normalized queries (shared QK), so that a token and the tokens it attends to have similar hashes. Tokens are
sorted by bucket and position and cut into chunks; a chunk holds all pairs that can see each other together with the
chunk before it. Further rounds of hashing find pairs that one round has missed. A token sees itself only if it sees
nothing else: its own score would dominate.

- `LshAttention`: replaces an `Attention`
- `lsh_attention`: the attention over the chunks of a plan (`modeling.attention.lsh_plan`)
- `LshCache`: keys, values and buckets of earlier tokens

Unlike in the paper, attention is causal in every respect. There, chunks are cut from the sorted order of the whole
sequence, so that tokens still to come shift the borders and with them what earlier tokens see. Here a token sees the
newest `chunk` tokens of its own bucket, itself among them, and the number of buckets follows from the context length,
not from the tokens at hand: what a token sees depends on earlier tokens alone, and decode sees what training saw.

Beyond the paper: a learned factor for each head on the normalized keys, with which a trained layer keeps its
temperature; and rotary positions, which rotate queries and keys before they are hashed.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention.key_value_cache import CacheSlots, CacheStep, CacheUse, LayerCache
from modeling.attention.lsh_plan import LshPlan, hash_buckets, lsh_plan, sees
from modeling.attention.multi_head import LayerContext
from modeling.attention.tiled_attention import HIDDEN
from modeling.documents import Documents
from modeling.rotary import rotate

SELF_PENALTY = 1e5
"""Subtracted from a token's score with itself (2001.04451, appendix A)."""


def lsh_attention(queries: Tensor, keys: Tensor, values: Tensor, plan: LshPlan, scale: float) -> Tensor:
    """Softmax attention over the keys seen in any round, each counted once (2001.04451, equations 4 to 6 and A).

    Args:
        queries: (batch, heads, tokens, head_width).
        keys: the same shape.
        values: the same shape.
        plan: of the queries.
        scale: of the scores.

    Returns:
        (batch, heads, tokens, head_width).
    """
    tokens, padded = queries.shape[2], plan.order.shape[-1]
    queries, keys, values = (F.pad(part, (0, 0, 0, padded - tokens)) for part in (queries, keys, values))
    means, log_sums = [], []
    for index in range(plan.order.shape[2]):
        mean, log_sum = _attend_in_round(queries, keys, values, plan, index, scale)
        rank = plan.rank[:, :, index]
        means.append(mean.gather(2, rank[..., None].expand_as(mean)))
        log_sums.append(log_sum.gather(2, rank))
    shares = torch.stack(log_sums).softmax(0).to(values.dtype)
    return (torch.stack(means) * shares[..., None]).sum(0)[:, :, :tokens]


def _attend_in_round(
    queries: Tensor, keys: Tensor, values: Tensor, plan: LshPlan, index: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Means (batch, heads, padded, head_width) and log-sum-exps (batch, heads, padded), in the sorted order."""
    order = plan.order[:, :, index]
    positions = torch.unflatten(order, 2, (-1, plan.chunk))
    key_positions = _with_previous(positions, fill=-1)
    sorted_queries, sorted_keys, sorted_values = (
        torch.unflatten(part.gather(2, order[..., None].expand_as(part)), 2, (-1, plan.chunk))
        for part in (queries, keys, values)
    )
    seen = _seen_by_round(plan, positions, key_positions)
    scores = _scores(sorted_queries, _with_previous(sorted_keys), scale)
    scores = scores - seen.sum(0).clamp_min(1).to(scores.dtype).log()
    scores = scores - SELF_PENALTY * (key_positions[..., None, :] == positions[..., None])
    scores = scores.masked_fill(~seen[index], HIDDEN)
    log_sum = scores.logsumexp(-1)
    mean = (scores - log_sum[..., None]).exp().to(values.dtype) @ _with_previous(sorted_values)
    return mean.flatten(2, 3), log_sum.flatten(2, 3)


def _scores(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    scores = queries @ keys.mT
    return scores.to(torch.promote_types(scores.dtype, torch.float32)) * scale


def _seen_by_round(plan: LshPlan, positions: Tensor, key_positions: Tensor) -> Tensor:
    """Whether each round sees each pair: (rounds, batch, heads, chunks, chunk, 2 chunk) bool."""
    seen = []
    for ranks, buckets in zip(plan.rank.unbind(2), plan.buckets.unbind(2), strict=True):
        rank, bucket = (ids.gather(2, positions.flatten(2)).view(positions.shape) for ids in (ranks, buckets))
        keys = key_positions.clamp_min(0).flatten(2)
        key_rank, key_bucket = (ids.gather(2, keys).view(key_positions.shape) for ids in (ranks, buckets))
        key_bucket = key_bucket.masked_fill(key_positions < 0, -1)
        seen.append(
            sees(rank[..., None], key_rank[..., None, :], bucket[..., None], key_bucket[..., None, :], plan.chunk)
        )
    return torch.stack(seen)


def _with_previous(chunks: Tensor, fill: int = 0) -> Tensor:
    """(batch, heads, chunks, chunk, ...) -> (..., 2 chunk, ...), each after its predecessor, the first after `fill`."""
    first = torch.full_like(chunks[:, :, :1], fill)
    return torch.cat((torch.cat((first, chunks[:, :, :-1]), dim=2), chunks), dim=3)


class KeyValueStore(Protocol):
    """Interface of the cache of keys and values in an `LshCache`: `LayerCache`, or its int8 counterpart."""

    @property
    def bytes(self) -> int:
        """Bytes allocated."""

    def write(self, level: int, entries: Tensor, slots: CacheSlots) -> None:
        """As in `LayerCache`."""

    def keys_and_values(self, used: int) -> Tensor:
        """As in `LayerCache`."""

    def keep(self, rows: Sequence[int]) -> None:
        """As in `LayerCache`."""


class LshCache:
    """Keys, values and buckets of one layer's earlier tokens; slots are those of full attention."""

    def __init__(
        self, entries: KeyValueStore, batch: int, capacity: int, heads: int, rounds: int, like: Tensor
    ) -> None:
        """Create an empty cache on the device of `like`; the extra slot is for padding."""
        self._entries = entries
        self._buckets = torch.zeros(batch, capacity + 1, heads, rounds, dtype=torch.int32, device=like.device)

    def write(self, entries: Tensor, buckets: Tensor, slots: CacheSlots) -> None:
        """Write entries (batch, new, heads, 2, head_width) and buckets (batch, heads, rounds, new) to these slots."""
        self._entries.write(0, entries, slots)
        self._buckets[slots] = buckets.permute(0, 3, 1, 2).to(torch.int32)

    def keys_and_values(self, used: int) -> Tensor:
        """The first `used` slots, (batch, used, heads, 2, head_width)."""
        return self._entries.keys_and_values(used)

    def buckets(self, used: int) -> Tensor:
        """Buckets of the first `used` slots, (batch, heads, rounds, used) int32."""
        return self._buckets[:, :used].permute(0, 2, 3, 1)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        self._entries.keep(rows)
        self._buckets = self._buckets[list(rows)]

    @property
    def bytes(self) -> int:
        """Bytes allocated, however many tokens are cached."""
        return self._entries.bytes + self._buckets.numel() * self._buckets.element_size()


class LshAttention(nn.Module):
    """Replacement of an `Attention` over all earlier tokens."""

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        rounds: int,
        bucket_size: int,
        buckets: int,
        seed: int,
        scale: float,
    ) -> None:
        """Allocate the tensors.

        Args:
            width: numbers per token.
            heads: of the layer, which may have lost some.
            head_width: numbers per head.
            rounds: of hashing.
            bucket_size: tokens per bucket on average; a token sees up to twice as many per round.
            buckets: number of buckets, from `bucket_count`.
            seed: of the random rotations.
            scale: of the scores.
        """
        super().__init__()
        self.heads, self.head_width, self._width = heads, head_width, width
        self.rounds, self.bucket_size, self.buckets = rounds, bucket_size, buckets
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
        buckets = hash_buckets(queries, self.rounds, self.buckets, self.seed)
        if cache is not None:
            keys, values = self.as_cached(keys), self.as_cached(values)
            slots = cache.step.tokens if isinstance(cache.step, CacheStep) else cache.step[0]
            cache.layer.write(_entries(keys, values), buckets, slots)  # type: ignore[arg-type]
        if cache is not None and isinstance(cache.step, CacheStep):
            mixed = self._after_cache(queries, buckets, cache.layer, cache.step)  # type: ignore[arg-type]
        else:
            plan = lsh_plan(buckets, self.bucket_size, _starts(context.documents, hidden))
            mixed = lsh_attention(queries, keys, values, plan, self.scale)
        return self.output(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def new_state(self, batch: int, capacity: int, like: Tensor) -> LshCache:
        """An empty cache; replaces the layer's plain cache in `DecoderCache.layers`."""
        entries = self.key_value_store(batch, capacity, like)
        return LshCache(entries, batch, capacity, self.heads, self.rounds, like)

    def key_value_store(self, batch: int, capacity: int, like: Tensor) -> KeyValueStore:
        """The part of the cache that holds keys and values, in the dtype of `like`."""
        return LayerCache([capacity], batch, self.heads, self.head_width, like)

    def as_cached(self, vectors: Tensor) -> Tensor:
        """Keys or values (..., head_width) as they are read from the cache."""
        return vectors

    def sizes(self) -> dict[str, Any]:
        """As in `modeling.layers.linear.Replacement`."""
        names = ("heads", "head_width", "rounds", "bucket_size", "buckets", "seed", "scale")
        return {"width": self._width, **{name: getattr(self, name) for name in names}}

    def mixing_products(self, tokens: int) -> int:
        """Multiply-accumulates per token of a row of `tokens`, with hashing, without projections."""
        chunk = min(2 * self.bucket_size, tokens)
        return int(self.heads * self.rounds * self.head_width * (self.buckets // 2 + 4 * chunk))

    def _after_cache(self, queries: Tensor, buckets: Tensor, cache: LshCache, step: CacheStep) -> Tensor:
        """New tokens over the cached ones that share a bucket: the newest `2 bucket_size` of each round."""
        keys, values = cache.keys_and_values(step.used).transpose(1, 2).unbind(3)
        slots = step.tokens[1]
        slots = torch.arange(slots.start, slots.stop, device=keys.device)[None] if isinstance(slots, slice) else slots
        # (batch, heads, rounds, new, used): cached tokens of the query's bucket, and how many follow up to the query
        same = buckets[..., None] == cache.buckets(step.used)[..., None, :]
        same &= torch.arange(step.used, device=keys.device) <= slots[:, None, None, :, None]
        newer = same.flip(-1).cumsum(-1).flip(-1)
        seen = (same & (newer <= 2 * self.bucket_size)).any(2)
        scores = _scores(queries, keys, self.scale)
        scores = scores - SELF_PENALTY * (slots[:, None, :, None] == torch.arange(step.used, device=keys.device))
        return scores.masked_fill(~seen, HIDDEN).softmax(-1).to(values.dtype) @ values


def _entries(keys: Tensor, values: Tensor) -> Tensor:
    """(batch, heads, tokens, head_width) each -> (batch, tokens, heads, 2, head_width), the layout of a cache."""
    return torch.stack((keys, values), dim=3).transpose(1, 2)


def _starts(documents: Documents | None, like: Tensor) -> Tensor | None:
    return None if documents is None else torch.from_numpy(documents.starts).to(like.device)
