"""Order of tokens in Reformer's LSH attention: hashed to buckets, sorted, cut into chunks (2001.04451, section 2).

- `bucket_count`, `hash_buckets`: buckets, and those of vectors
- `LshPlan`, `lsh_plan`: the sorted order and its chunks; `sees`: whether a token sees another
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def bucket_count(context_length: int, bucket_size: int) -> int:
    """Buckets, an even number, that hold `bucket_size` tokens of a full context on average."""
    return 2 * max(1, math.ceil(context_length / bucket_size / 2))


@cache
def _rotations(rounds: int, head_width: int, half: int, seed: int) -> Tensor:
    """(rounds, head_width, half) float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rounds, head_width, half, generator=generator, dtype=torch.float64)


@torch.no_grad()
def hash_buckets(vectors: Tensor, rounds: int, buckets: int, seed: int) -> Tensor:
    """Bucket of each vector: the direction, among random ones and their opposites, that is nearest to it.

    Args:
        vectors: (batch, heads, tokens, head_width); their length does not matter.
        rounds: of hashing.
        buckets: number of buckets, even.
        seed: of the directions, which are the same in every call.

    Returns:
        (batch, heads, rounds, tokens) int64.
    """
    rotated = vectors[:, :, None] @ _rotations(rounds, vectors.shape[-1], buckets // 2, seed).to(vectors)
    return torch.cat((rotated, -rotated), dim=-1).argmax(-1)


@dataclass(frozen=True)
class LshPlan:
    """Chunks of each round, for `tokens` padded to a multiple of `chunk`."""

    order: Tensor
    """(batch, heads, rounds, padded) int64: the token at each index of the sorted order."""
    rank: Tensor
    """Its inverse: each token's index in the sorted order."""
    buckets: Tensor
    """(batch, heads, rounds, padded) int64: each token's bucket; different in different documents."""
    chunk: int

    def visible(self, tokens: int) -> Tensor:
        """(batch, heads, tokens, tokens) bool: pairs that see each other in some round, for tests and figures."""
        rank, buckets = self.rank[..., :tokens], self.buckets[..., :tokens]
        return sees(rank[..., None], rank[..., None, :], buckets[..., None], buckets[..., None, :], self.chunk).any(2)


def sees(rank: Tensor, key_rank: Tensor, bucket: Tensor, key_bucket: Tensor, chunk: int) -> Tensor:
    """Whether a key is one of the newest `chunk` of the query's bucket; ranks are indices in the sorted order."""
    distance = rank - key_rank
    return (bucket == key_bucket) & (distance >= 0) & (distance < chunk)


def lsh_plan(buckets: Tensor, bucket_size: int, starts: Tensor | None = None) -> LshPlan:
    """Sort tokens by bucket and position.

    Args:
        buckets: (batch, heads, rounds, tokens) int64, from `hash_buckets`.
        bucket_size: tokens per bucket on average; a token sees up to twice as many, so that few buckets exceed it.
        starts: (batch, tokens) int64, the first token of each token's document; None if a row is one document.
    """
    tokens = buckets.shape[-1]
    chunk = min(2 * bucket_size, tokens)
    padded = tokens + -tokens % chunk
    if starts is not None:
        buckets = buckets + starts[:, None, None] * (int(buckets.max()) + 1)
    # Padding sorts after all tokens.
    buckets = F.pad(buckets, (0, padded - tokens), value=int(buckets.max()) + 1)
    order = (buckets * padded + torch.arange(padded, device=buckets.device)).argsort(-1)
    rank = torch.empty_like(order).scatter_(-1, order, torch.arange(padded, device=order.device).expand_as(order))
    return LshPlan(order, rank, buckets, chunk)
