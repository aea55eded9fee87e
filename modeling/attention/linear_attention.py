"""Softmax attention turned into linear attention: time linear in the tokens, a decode state of fixed size.

    out_t = sum over s <= t of phi(q_t) . phi(k_s) v_s, over sum over s <= t of phi(q_t) . phi(k_s)

(Katharopoulos et al. 2020, 2006.16236, section 3). The feature maps are Hedgehog's (Zhang et al. 2024, 2402.04347,
section 4.1): softmaxes of a learnt map, which can be as spiky and as monotone in q . k as softmax attention is. They
are fitted to the trained layer's own attention weights (`modeling.compression.attention_transfer`), and training then
continues.

- `LinearAttention`: takes an `Attention`'s place; `RecurrentState`: what it keeps in decode
- `linear_attention`: the chunked causal form
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention.key_value_cache import CacheSlots, CacheStep, CacheUse
from modeling.attention.multi_head import Attention, LayerContext
from modeling.documents import Documents
from modeling.rotary import rotate

CHUNK = 64
"""Tokens that look at one another by a masked product; all before them are in the state."""


class RecurrentState:
    """Sums of key features times values, and of key features: (batch, heads, features, head_width + 1)."""

    def __init__(self, sums: Tensor, capacity: int) -> None:
        """Begin with these sums; `capacity` is that of the `DecoderCache`, whose place `capacity` is for padding."""
        self.sums = sums
        self._capacity = capacity

    def counted(self, places: CacheSlots) -> Tensor | None:
        """(batch, tokens) bool, False for padding; None where all tokens count."""
        return None if isinstance(places[1], slice) else places[1] < self._capacity

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all other rows."""
        self.sums = self.sums[list(rows)]

    @property
    def bytes(self) -> int:
        """Memory that the state takes."""
        return self.sums.numel() * self.sums.element_size()


class HedgehogFeatures(nn.Module):
    """phi(x) = [softmax(W x), softmax(-W x)] for each head; starts with W = 1, the identity's first rows."""

    def __init__(self, heads: int, head_width: int, features: int) -> None:
        """Make room for `projection` (heads, head_width, features)."""
        super().__init__()
        eye = torch.eye(head_width, features).expand(heads, -1, -1).clone()
        self.projection = nn.Parameter(eye)

    def forward(self, vectors: Tensor) -> Tensor:
        """(batch, heads, tokens, head_width) -> (batch, heads, tokens, 2 features), positive; each half sums to 1."""
        mapped = vectors @ self.projection
        return torch.cat((mapped.softmax(-1), (-mapped).softmax(-1)), dim=-1)


def linear_attention(
    queries: Tensor, keys: Tensor, values: Tensor, sums: Tensor | None = None, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """The causal form in chunks (Hua et al. 2022, 2202.10447, section 3.2; Yang et al. 2023, 2312.06635, section 2).

    Args:
        queries: features (batch, heads, tokens, features), not negative.
        keys: features of the same shape; zeros for a token that nobody sees.
        values: (batch, heads, tokens, head_width).
        sums: (batch, heads, features, head_width + 1) of the tokens before these; the last column sums keys alone.
        chunk: tokens that look at one another directly.

    Returns:
        (batch, heads, tokens, head_width), and the sums with these tokens in them.
    """
    tokens = queries.shape[2]
    chunk = min(chunk, tokens)
    counted = F.pad(values, (0, 1), value=1.0)
    missing = -tokens % chunk
    # Padding has queries that see something: 0 / 0 would spoil the gradient though it is cut off.
    queries = torch.unflatten(F.pad(queries, (0, 0, 0, missing), value=1.0), 2, (-1, chunk))
    keys = torch.unflatten(F.pad(keys, (0, 0, 0, missing)), 2, (-1, chunk))
    counted = torch.unflatten(F.pad(counted, (0, 0, 0, missing)), 2, (-1, chunk))
    of_chunks = (keys.mT @ counted).cumsum(2)
    before = torch.zeros_like(of_chunks[:, :, :1]) if sums is None else sums[:, :, None].to(of_chunks.dtype)
    of_chunks = torch.cat((before, before + of_chunks), dim=2)
    total = (queries @ keys.mT).tril() @ counted + queries @ of_chunks[:, :, :-1]
    weight = total[..., -1:].clamp_min(torch.finfo(total.dtype).tiny)
    return (total[..., :-1] / weight).flatten(2, 3)[:, :, :tokens], of_chunks[:, :, -1]


class LinearAttention(nn.Module):
    """In place of an `Attention` that sees all tokens so far."""

    def __init__(self, width: int, heads: int, head_width: int, features: int) -> None:
        """Make room.

        Args:
            width: numbers per token.
            heads: of the layer, which may have lost some.
            head_width: numbers per head.
            features: numbers that a query or key is mapped to; softmax of plus and minus makes twice as many.
        """
        super().__init__()
        self._sizes = {"width": width, "heads": heads, "head_width": head_width, "features": features}
        self.head_width = head_width
        self.query_key_value = nn.Linear(width, 3 * heads * head_width)
        self.output = nn.Linear(heads * head_width, width)
        self.query_features = HedgehogFeatures(heads, head_width, features)
        self.key_features = HedgehogFeatures(heads, head_width, features)

    @classmethod
    def from_attention(cls, given: Attention, width: int, heads: int, features: int) -> "LinearAttention":
        """With the very projections of `given`, and feature maps that are not fitted yet."""
        made = cls(width, heads, given.head_width, features)
        made.query_key_value, made.output = given.query_key_value, given.output
        return made.train(given.training)

    def forward(self, hidden: Tensor, context: LayerContext, cache: CacheUse | None = None) -> Tensor:
        """As `Attention.forward`: (batch, tokens, width), normed -> the same, to be added to the residual stream."""
        projected = self.query_key_value(hidden).unflatten(-1, (-1, 3, self.head_width))
        projected = rotate(projected, context.rotation)
        if cache is None:
            mixed = self._within(projected, context.documents)
        elif isinstance(cache.layer, RecurrentState):
            mixed = self._behind_state(projected, cache.layer, cache.step)
        else:
            mixed = self._behind_keys(projected, cache)
        return self.output(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._sizes)

    def mixing_products(self, tokens: int) -> int:
        """Multiply-accumulates per token of a row of `tokens`, projections not counted; with 1, those of decode."""
        heads, features = self._sizes["heads"], 2 * self._sizes["features"]
        columns = self.head_width + 1
        return heads * features * (self.head_width + 2 * columns) + heads * min(tokens, CHUNK) * (features + columns)

    def new_state(self, batch: int, capacity: int, like: Tensor) -> RecurrentState:
        """An empty state for decode; stands in the place of the layer's cache in `DecoderCache.layers`."""
        heads, features = self._sizes["heads"], 2 * self._sizes["features"]
        return RecurrentState(like.new_zeros(batch, heads, features, self.head_width + 1), capacity)

    def features(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of queries and keys (batch, heads, tokens, 2 features), and values (..., head_width)."""
        queries, keys, values = projected.transpose(1, 2).unbind(3)
        return self.query_features(queries), self.key_features(keys), values

    def _within(self, projected: Tensor, documents: Documents | None) -> Tensor:
        """(batch, heads, tokens, head_width)."""
        queries, keys, values = self.features(projected)
        if documents is None:
            return linear_attention(queries, keys, values)[0]
        rows: list[list[Tensor]] = [[] for _ in queries]
        for row, start, stop in documents.spans():
            here = slice(row, row + 1), slice(None), slice(start, stop)
            rows[row].append(linear_attention(queries[here], keys[here], values[here])[0])
        return torch.cat([torch.cat(parts, dim=2) for parts in rows])

    def _behind_state(self, projected: Tensor, state: RecurrentState, step: CacheStep | list[CacheSlots]) -> Tensor:
        queries, keys, values = self.features(projected)
        counted = state.counted(step.tokens if isinstance(step, CacheStep) else step[0])
        if counted is not None:
            keys = keys * counted[:, None, :, None]
        mixed, state.sums = linear_attention(queries, keys, values, state.sums)
        return mixed

    def _behind_keys(self, projected: Tensor, cache: CacheUse) -> Tensor:
        """From keys and values of all tokens, where the cache is one for softmax attention: the same, in more time."""
        if not isinstance(cache.step, CacheStep):
            cache.layer.write(0, projected[..., 1:, :], cache.step[0])
            return self._within(projected, None)
        cache.layer.write(0, projected[..., 1:, :], cache.step.tokens)
        keys, values = cache.layer.keys_and_values(cache.step.used).transpose(1, 2).unbind(3)
        queries = projected[..., 0, :].transpose(1, 2)
        weights = self.query_features(queries) @ self.key_features(keys).mT
        if cache.step.mask is not None:
            weights = weights.masked_fill(cache.step.mask < 0, 0.0)
        mixed: Tensor = weights / weights.sum(-1, keepdim=True) @ values
        return mixed
