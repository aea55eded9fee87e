"""Linear attention in place of softmax attention: time linear in the tokens, a decode state of fixed size.

    out_t = sum over s <= t of phi(q_t) . phi(k_s) v_s, over sum over s <= t of phi(q_t) . phi(k_s)

(Katharopoulos et al. 2020, 2006.16236, section 3). The feature maps are Hedgehog's (Zhang et al. 2024, 2402.04347,
section 4.1): softmaxes of a learned map, which can be as spiky and as monotone in q . k as softmax attention. They are
fitted to the trained layer's own attention weights (`modeling.compression.attention_transfer`), and training then
continues.

- `LinearAttention`: replaces an `Attention`; `RecurrentState`: its decode state
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
"""Tokens that see one another by a masked product; all tokens before them are in the state."""


class RecurrentState:
    """Sums of key features times values, and of key features: (batch, heads, features, head_width + 1).

    Its size does not depend on the number of tokens. It replaces the layer's `LayerCache` in `DecoderCache.layers`.
    """

    def __init__(self, sums: Tensor, capacity: int) -> None:
        """Start with these sums; `capacity` is that of the `DecoderCache`, in which slot `capacity` is for padding."""
        self.sums = sums
        self._capacity = capacity

    def counted(self, slots: CacheSlots) -> Tensor | None:
        """(batch, tokens) bool, False for padding; None if there is none."""
        return None if isinstance(slots[1], slice) else slots[1] < self._capacity

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        self.sums = self.sums[list(rows)]

    @property
    def bytes(self) -> int:
        """Bytes of the state."""
        return self.sums.numel() * self.sums.element_size()


class HedgehogFeatures(nn.Module):
    """phi(x) = [softmax(W x), softmax(-W x)] for each head; starts with W = 1, the identity's first rows."""

    def __init__(self, heads: int, head_width: int, features: int) -> None:
        """Allocate `projection` (heads, head_width, features)."""
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
    """Causal, in chunks (Hua et al. 2022, 2202.10447, section 3.2; Yang et al. 2023, 2312.06635, section 2).

    Args:
        queries: features (batch, heads, tokens, features), not negative.
        keys: features of the same shape; zeros for a token that no query sees.
        values: (batch, heads, tokens, head_width).
        sums: (batch, heads, features, head_width + 1) of the tokens before these; the last column sums only keys.
        chunk: tokens that see one another directly.

    Returns:
        (batch, heads, tokens, head_width), and the sums including these tokens.
    """
    tokens = queries.shape[2]
    chunk = min(chunk, tokens)
    counted = F.pad(values, (0, 1), value=1.0)
    missing = -tokens % chunk
    # Queries of padding are ones, not zeros: 0 / 0 would make the gradient NaN although the result is cut off.
    queries = torch.unflatten(F.pad(queries, (0, 0, 0, missing), value=1.0), 2, (-1, chunk))
    keys = torch.unflatten(F.pad(keys, (0, 0, 0, missing)), 2, (-1, chunk))
    counted = torch.unflatten(F.pad(counted, (0, 0, 0, missing)), 2, (-1, chunk))
    chunk_sums = (keys.mT @ counted).cumsum(2)
    before = torch.zeros_like(chunk_sums[:, :, :1]) if sums is None else sums[:, :, None].to(chunk_sums.dtype)
    chunk_sums = torch.cat((before, before + chunk_sums), dim=2)
    total = (queries @ keys.mT).tril() @ counted + queries @ chunk_sums[:, :, :-1]
    weight = total[..., -1:].clamp_min(torch.finfo(total.dtype).tiny)
    return (total[..., :-1] / weight).flatten(2, 3)[:, :, :tokens], chunk_sums[:, :, -1]


class LinearAttention(nn.Module):
    """Replacement of an `Attention` over all earlier tokens."""

    def __init__(self, width: int, heads: int, head_width: int, features: int) -> None:
        """Allocate the tensors.

        Args:
            width: numbers per token.
            heads: of the layer, which may have lost some.
            head_width: numbers per head.
            features: outputs of the map of a query or key; the softmaxes of plus and minus double them.
        """
        super().__init__()
        self._sizes = {"width": width, "heads": heads, "head_width": head_width, "features": features}
        self.head_width = head_width
        self.query_key_value = nn.Linear(width, 3 * heads * head_width)
        self.output = nn.Linear(heads * head_width, width)
        self.query_features = HedgehogFeatures(heads, head_width, features)
        self.key_features = HedgehogFeatures(heads, head_width, features)

    @classmethod
    def from_attention(cls, attention: Attention, width: int, heads: int, features: int) -> "LinearAttention":
        """Share the projections of `attention`; the feature maps are not fitted yet."""
        layer = cls(width, heads, attention.head_width, features)
        layer.query_key_value, layer.output = attention.query_key_value, attention.output
        return layer.train(attention.training)

    def forward(self, hidden: Tensor, context: LayerContext, cache: CacheUse | None = None) -> Tensor:
        """As `Attention.forward`: (batch, tokens, width), normed -> the same, to be added to the residual stream."""
        projected = self.query_key_value(hidden).unflatten(-1, (-1, 3, self.head_width))
        projected = rotate(projected, context.rotation)
        if cache is None:
            mixed = self._from_start(projected, context.documents)
        elif isinstance(cache.layer, RecurrentState):
            mixed = self._after_state(projected, cache.layer, cache.step)
        else:
            mixed = self._after_keys(projected, cache)
        return self.output(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def sizes(self) -> dict[str, Any]:
        """As in `modeling.layers.linear.Replacement`."""
        return dict(self._sizes)

    def mixing_products(self, tokens: int) -> int:
        """Multiply-accumulates per token of a row of `tokens`, without projections; those of decode for 1."""
        heads, features = self._sizes["heads"], 2 * self._sizes["features"]
        columns = self.head_width + 1
        return heads * features * (self.head_width + 2 * columns) + heads * min(tokens, CHUNK) * (features + columns)

    def new_state(self, batch: int, capacity: int, like: Tensor) -> RecurrentState:
        """An empty decode state; replaces the layer's cache in `DecoderCache.layers`."""
        heads, features = self._sizes["heads"], 2 * self._sizes["features"]
        return RecurrentState(like.new_zeros(batch, heads, features, self.head_width + 1), capacity)

    def features(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of queries and keys (batch, heads, tokens, 2 features), and values (..., head_width)."""
        queries, keys, values = projected.transpose(1, 2).unbind(3)
        return self.query_features(queries), self.key_features(keys), values

    def _from_start(self, projected: Tensor, documents: Documents | None) -> Tensor:
        """(batch, heads, tokens, head_width)."""
        queries, keys, values = self.features(projected)
        if documents is None:
            return linear_attention(queries, keys, values)[0]
        rows: list[list[Tensor]] = [[] for _ in queries]
        for row, start, stop in documents.spans():
            own = slice(row, row + 1), slice(None), slice(start, stop)
            rows[row].append(linear_attention(queries[own], keys[own], values[own])[0])
        return torch.cat([torch.cat(parts, dim=2) for parts in rows])

    def _after_state(self, projected: Tensor, state: RecurrentState, step: CacheStep | list[CacheSlots]) -> Tensor:
        queries, keys, values = self.features(projected)
        counted = state.counted(step.tokens if isinstance(step, CacheStep) else step[0])
        if counted is not None:
            keys = keys * counted[:, None, :, None]
        mixed, state.sums = linear_attention(queries, keys, values, state.sums)
        return mixed

    def _after_keys(self, projected: Tensor, cache: CacheUse) -> Tensor:
        """With a cache for softmax attention, from keys and values of all tokens: the same result in more time."""
        if not isinstance(cache.step, CacheStep):
            cache.layer.write(0, projected[..., 1:, :], cache.step[0])
            return self._from_start(projected, None)
        cache.layer.write(0, projected[..., 1:, :], cache.step.tokens)
        keys, values = cache.layer.keys_and_values(cache.step.used).transpose(1, 2).unbind(3)
        queries = projected[..., 0, :].transpose(1, 2)
        weights = self.query_features(queries) @ self.key_features(keys).mT
        if cache.step.mask is not None:
            weights = weights.masked_fill(cache.step.mask < 0, 0.0)
        mixed: Tensor = weights / weights.sum(-1, keepdim=True) @ values
        return mixed
