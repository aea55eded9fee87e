"""Reformer's attention: each token looks at those that a hash puts near it (Kitaev et al. 2020, 2001.04451, section 2).

Queries are the keys' direction (shared QK), so that a token and what it looks for hash alike. Tokens are sorted by
bucket and place and cut into chunks; a chunk looks at itself and at the one before it. Several rounds of hashing find
what one has missed. A token looks at itself only where it has nothing else, as it would otherwise see little else.

- `LshAttention`: takes an `Attention`'s place
- `LshPlan`: which tokens see each other; `lsh_attention`: the attention over it

Beyond the paper: a learnt factor for each head on the normed keys, which lets a trained layer keep its temperature; and
rotary positions, which turn queries and keys before they are hashed.
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

ITSELF = 1e5
"""Taken from a token's score with itself (2001.04451, appendix A)."""


@dataclass(frozen=True)
class LshPlan:
    """Chunks of each round, for `tokens` padded to a multiple of `chunk`."""

    order: Tensor
    """(batch, heads, rounds, padded) int64: the token at each place of the sorted order."""
    place: Tensor
    """Its inverse: each token's place."""
    chunk: int

    @property
    def chunks(self) -> Tensor:
        """(batch, heads, rounds, padded): the chunk of each token."""
        return self.place // self.chunk

    def visible(self, tokens: int, starts: Tensor | None = None) -> Tensor:
        """(batch, heads, tokens, tokens) bool: pairs that some round lets see each other, for tests and figures."""
        ids = self.chunks[..., :tokens]
        apart = ids[..., :, None] - ids[..., None, :]
        places = torch.arange(tokens, device=ids.device)
        seen = ((apart == 0) | (apart == 1)).any(2) & (places <= places[:, None])
        return seen if starts is None else seen & (places >= starts[..., None])[:, None]


def lsh_plan(queries: Tensor, rounds: int, bucket_size: int, seed: int) -> LshPlan:
    """Hash by random rotations: the bucket is the direction, of all and their opposites, that a query is nearest to.

    Args:
        queries: (batch, heads, tokens, head_width).
        rounds: of hashing.
        bucket_size: tokens per bucket on average; a chunk is twice as long, so that few buckets pass it.
        seed: of the rotations, which are the same in every call.
    """
    tokens, head_width = queries.shape[2:]
    chunk = min(2 * bucket_size, tokens)
    padded = tokens + -tokens % chunk
    half = max(1, math.ceil(padded / bucket_size / 2))
    generator = torch.Generator().manual_seed(seed)
    rotations = torch.randn(rounds, head_width, half, generator=generator, dtype=torch.float64).to(queries)
    with torch.no_grad():
        turned = queries[:, :, None] @ rotations
        buckets = torch.cat((turned, -turned), dim=-1).argmax(-1)
        # Padding sorts behind all tokens.
        buckets = F.pad(buckets, (0, padded - tokens), value=2 * half)
        order = (buckets * padded + torch.arange(padded, device=queries.device)).argsort(-1)
        place = torch.empty_like(order).scatter_(-1, order, torch.arange(padded, device=order.device).expand_as(order))
    return LshPlan(order, place, chunk)


def lsh_attention(
    queries: Tensor, keys: Tensor, values: Tensor, plan: LshPlan, scale: float, starts: Tensor | None = None
) -> Tensor:
    """Softmax attention over the keys that any round shows, each counted once (2001.04451, equations 4 to 6 and A).

    Args:
        queries: (batch, heads, tokens, head_width).
        keys: the same shape.
        values: the same shape.
        plan: of the queries.
        scale: of the scores.
        starts: (batch, tokens) int64, the first token that each may see; None for all.

    Returns:
        (batch, heads, tokens, head_width).
    """
    tokens, padded = queries.shape[2], plan.order.shape[-1]
    queries, keys, values = (F.pad(one, (0, 0, 0, padded - tokens)) for one in (queries, keys, values))
    if starts is not None:
        starts = F.pad(starts, (0, padded - tokens))
    means, log_sums = [], []
    for number in range(plan.order.shape[2]):
        mean, log_sum = _one_round(queries, keys, values, plan, number, scale, starts)
        place = plan.place[:, :, number]
        means.append(mean.gather(2, place[..., None].expand_as(mean)))
        log_sums.append(log_sum.gather(2, place))
    shares = torch.stack(log_sums).softmax(0).to(values.dtype)
    return (torch.stack(means) * shares[..., None]).sum(0)[:, :, :tokens]


def _one_round(
    queries: Tensor, keys: Tensor, values: Tensor, plan: LshPlan, number: int, scale: float, starts: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Means (batch, heads, padded, head_width) and log-sum-exps (batch, heads, padded), in the sorted order."""
    order = plan.order[:, :, number]
    places = torch.unflatten(order, 2, (-1, plan.chunk))
    seen_places = _with_previous(places, fill=order.shape[-1])  # later than all tokens: not seen
    sorted_queries, sorted_keys, sorted_values = (
        torch.unflatten(one.gather(2, order[..., None].expand_as(one)), 2, (-1, plan.chunk))
        for one in (queries, keys, values)
    )
    seen = seen_places[..., None, :] <= places[..., None]
    if starts is not None:
        first = starts[:, None].expand(-1, order.shape[1], -1).gather(2, order)
        seen &= seen_places[..., None, :] >= torch.unflatten(first, 2, (-1, plan.chunk))[..., None]
    scores = _scores(sorted_queries, _with_previous(sorted_keys), scale)
    scores = scores - _times_seen(plan, places, seen_places).to(scores.dtype).log()
    scores = scores - ITSELF * (seen_places[..., None, :] == places[..., None])
    scores = scores.masked_fill(~seen, HIDDEN)
    log_sum = scores.logsumexp(-1)
    mean = (scores - log_sum[..., None]).exp().to(values.dtype) @ _with_previous(sorted_values)
    return mean.flatten(2, 3), log_sum.flatten(2, 3)


def _scores(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    scores = queries @ keys.mT
    return scores.to(torch.promote_types(scores.dtype, torch.float32)) * scale


def _times_seen(plan: LshPlan, places: Tensor, seen_places: Tensor) -> Tensor:
    """How many rounds show each pair, at least 1: (batch, heads, chunks, chunk, 2 chunk) int64."""
    times = torch.zeros((), dtype=torch.int64, device=places.device)
    padded = plan.order.shape[-1]
    for ids in plan.chunks.unbind(2):
        own = ids.gather(2, places.flatten(2)).view(places.shape)
        other = ids.gather(2, seen_places.clamp(max=padded - 1).flatten(2)).view(seen_places.shape)
        apart = own[..., None] - other[..., None, :]
        times = times + ((apart == 0) | (apart == 1)).long()
    return times.clamp_min(1)


def _with_previous(chunks: Tensor, fill: int = 0) -> Tensor:
    """(batch, heads, chunks, chunk, ...) -> (..., 2 chunk, ...), the previous chunk in front; the first has `fill`."""
    first = torch.full_like(chunks[:, :, :1], fill)
    return torch.cat((torch.cat((first, chunks[:, :, :-1]), dim=2), chunks), dim=3)


class LshAttention(nn.Module):
    """In place of an `Attention` that sees all tokens so far.

    Tokens behind a cache look at all it holds: for one query, hashing would save nothing. What is generated is so the
    attention that the hash approximates.
    """

    def __init__(
        self, width: int, heads: int, head_width: int, rounds: int, bucket_size: int, seed: int, scale: float
    ) -> None:
        """Make room.

        Args:
            width: numbers per token.
            heads: of the layer, which may have lost some.
            head_width: numbers per head.
            rounds: of hashing.
            bucket_size: tokens per bucket on average; each sees up to 4 times as many per round.
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
            mixed = self._behind_cache(queries, keys, values, cache.layer, cache.step)
        else:
            if cache is not None:
                cache.layer.write(0, _entries(keys, values), cache.step[0])  # type: ignore[index]
            plan = lsh_plan(queries.detach(), self.rounds, self.bucket_size, self.seed)
            mixed = lsh_attention(queries, keys, values, plan, self.scale, _starts(context.documents, hidden))
        return self.output(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments."""
        mine = {"rounds": self.rounds, "bucket_size": self.bucket_size, "seed": self.seed, "scale": self.scale}
        return {**self._sizes, **mine}

    def mixing_products(self, tokens: int) -> int:
        """Multiply-accumulates per token of a row of `tokens`, projections not counted, hashing counted."""
        chunk = min(2 * self.bucket_size, tokens)
        half = max(1, math.ceil((tokens + -tokens % chunk) / self.bucket_size / 2))
        return int(self._sizes["heads"] * self.rounds * self.head_width * (half + 4 * chunk))

    def _behind_cache(
        self, queries: Tensor, keys: Tensor, values: Tensor, cache: LayerCache, step: CacheStep
    ) -> Tensor:
        cache.write(0, _entries(keys, values), step.tokens)
        held_keys, held_values = cache.keys_and_values(step.used).transpose(1, 2).unbind(3)
        scores = _scores(queries, held_keys, self.scale)
        if step.mask is not None:
            scores = scores + step.mask
        own = step.tokens[1]
        own = torch.arange(own.start, own.stop, device=scores.device)[None] if isinstance(own, slice) else own
        itself = own[:, None, :, None] == torch.arange(step.used, device=scores.device)
        return (scores - ITSELF * itself).softmax(-1).to(values.dtype) @ held_values


def _entries(keys: Tensor, values: Tensor) -> Tensor:
    """(batch, heads, tokens, head_width) each -> (batch, tokens, heads, 2, head_width), as a cache takes them."""
    return torch.stack((keys, values), dim=3).transpose(1, 2)


def _starts(documents: Documents | None, like: Tensor) -> Tensor | None:
    return None if documents is None else torch.from_numpy(documents.starts).to(like.device)
