"""A key-value cache in int8: three and a half times less memory per token, for all kinds of softmax attention.

Full attention over it multiplies integers (SageAttention, 2410.02367, section 4): queries are quantized too, with a
scale per query and head. Weights of values, with the values' scales in them, are integers of 15 bits: int8 would drop
all weights below 1/254 of the largest, however many (SageAttention leaves this product in 16 bits as well). Other kinds
of attention dequantize keys and values.

The cache's kind is part of the network and its files: an `Int8CacheAttention` replaces an `Attention` and differs from
it only in the cache that `Transformer.new_cache` creates for it; its matrices, or their replacements, are unchanged.

- `Int8LayerCache`: the cache
- `Int8CacheAttention`, `Int8CacheLshAttention`: attention that uses it
- `integer_attention`: the products with it; `modeling/kernels/decoder.c` computes the same
"""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from modeling.attention.key_value_cache import MAX_NEW_TOKENS, CacheSlots, CacheUse, LayerCache, section_capacities
from modeling.attention.kinds import AttentionKind, FullAttention
from modeling.attention.lsh_attention import LshAttention
from modeling.attention.multi_head import Attention
from modeling.documents import Documents
from modeling.layers.int8 import quantize_rows

LARGEST_WEIGHT = 32_767
"""Code of the largest weight of a query's values."""
_any_kind: TypeAdapter[Any] = TypeAdapter(AttentionKind)


class Int8LayerCache:
    """`LayerCache` in int8, with a float32 scale for each entry's key and value in each head.

    Values read differ from values written by at most half a scale: 1/254 of the key's or value's largest magnitude.
    `read` and `keys_and_values` dequantize entries; `codes_and_scales` does not.
    """

    def __init__(self, capacities: Sequence[int], batch: int, heads: int, head_width: int, like: Tensor) -> None:
        """Create an empty cache on the device of `like`; entries are read in its dtype."""
        self._dtype = like.dtype
        self._codes = LayerCache(capacities, batch, heads, head_width, like.new_empty(0, dtype=torch.int8))
        self._scales = LayerCache(capacities, batch, heads, 1, like.new_empty(0, dtype=torch.float32))

    def write(self, level: int, entries: Tensor, slots: CacheSlots) -> None:
        """As in `LayerCache`."""
        codes, scales = quantize_rows(entries)
        self._codes.write(level, codes, slots)
        self._scales.write(level, scales, slots)

    def read(self, level: int, slots: CacheSlots) -> Tensor:
        """As in `LayerCache`."""
        return self._codes.read(level, slots).to(self._dtype).mul_(self._scales.read(level, slots))

    def keys_and_values(self, used: int) -> Tensor:
        """As in `LayerCache`."""
        return self._codes.keys_and_values(used).to(self._dtype).mul_(self._scales.keys_and_values(used))

    def codes_and_scales(self, used: int) -> tuple[Tensor, Tensor]:
        """The first `used` slots: int8 (batch, used, heads, 2, head_width) and float32 (batch, used, heads, 2, 1)."""
        return self._codes.keys_and_values(used), self._scales.keys_and_values(used)

    def keep(self, rows: Sequence[int]) -> None:
        """As in `LayerCache`."""
        self._codes.keep(rows)
        self._scales.keep(rows)

    def tensors(self) -> tuple[Tensor, Tensor | None]:
        """As in `LayerCache`."""
        return self._codes.tensors()[0], self._scales.tensors()[0]

    @property
    def bytes(self) -> int:
        """As in `LayerCache`."""
        return self._codes.bytes + self._scales.bytes


class Int8CacheAttention(Attention):
    """An `Attention` that keeps keys and values in int8."""

    def __init__(self, attention: dict[str, Any], width: int, heads: int, scale: float) -> None:
        """Allocate the tensors.

        Args:
            attention: its kind, as in a `TransformerConfig`.
            width: numbers per token.
            heads: of the config: numbers per head are width / heads. The layer itself may have lost some.
            scale: of the scores.
        """
        super().__init__(_any_kind.validate_python(attention), width, heads, scale)
        self._sizes = {"width": width, "heads": heads, "scale": scale}

    def new_state(self, batch: int, capacity: int, like: Tensor) -> Int8LayerCache:
        """An empty cache; replaces the layer's float cache in `DecoderCache.layers`."""
        return Int8LayerCache(section_capacities(self.kind, capacity), batch, self.heads, self.head_width, like)

    @property
    def mixing_bits(self) -> int:
        """Bit operations per product with keys and values, for `modeling.evaluation.network_counts`.

        Half of the products are of int8 queries and keys, half of 16-bit weights and int8 values.
        """
        return (8 * 8 + 16 * 8) // 2 if isinstance(self.kind, FullAttention) else 32 * 32

    def _over_entries(self, queries: Tensor, cache: LayerCache, used: int, mask: Tensor | None) -> Tensor:
        if not isinstance(self.kind, FullAttention):
            return super()._over_entries(queries, cache, used, mask)
        assert isinstance(cache, Int8LayerCache)
        return integer_attention(queries, *cache.codes_and_scales(used), self.scale, mask)

    def _from_start(self, projected: Tensor, documents: Documents | None, cache: CacheUse | None) -> Tensor:
        """As in `Attention`; with a cache, tokens see keys and values as it holds them, and not as they were."""
        if cache is not None and isinstance(self.kind, FullAttention):
            assert isinstance(cache.step, list)
            cache.layer.write(0, projected[..., 1:, :], cache.step[0])
            return self._causal_over_integers(projected)
        if cache is not None:
            projected = torch.cat((projected[..., :1, :], _round_trip(projected[..., 1:, :])), dim=-2)
        return super()._from_start(projected, documents, cache)

    def _causal_over_integers(self, projected: Tensor) -> Tensor:
        """Each token over itself and those before it: (batch, tokens, heads, head_width), few queries at a time."""
        codes, scales = quantize_rows(projected[..., 1:, :])
        queries, tokens = projected[..., 0, :].transpose(1, 2), projected.shape[1]
        positions = torch.arange(tokens, device=queries.device)
        mixed = []
        for start in range(0, tokens, MAX_NEW_TOKENS):
            stop = min(start + MAX_NEW_TOKENS, tokens)
            later = positions[:stop] > positions[start:stop, None]
            mask = torch.zeros_like(later, dtype=queries.dtype).masked_fill_(later, -torch.inf)
            part = integer_attention(queries[:, :, start:stop], codes[:, :stop], scales[:, :stop], self.scale, mask)
            mixed.append(part)
        return torch.cat(mixed, dim=2).transpose(1, 2)

    def sizes(self) -> dict[str, Any]:
        """As in `modeling.layers.linear.Replacement`."""
        return {"attention": self.kind.model_dump(mode="json"), **self._sizes}


class Int8CacheLshAttention(LshAttention):
    """An `LshAttention` that keeps keys and values in int8."""

    def key_value_store(self, batch: int, capacity: int, like: Tensor) -> Int8LayerCache:
        """The part of the cache that holds keys and values, in int8; buckets stay exact."""
        return Int8LayerCache([capacity], batch, self.heads, self.head_width, like)

    def as_cached(self, vectors: Tensor) -> Tensor:
        """Keys or values (..., head_width), rounded to int8 and dequantized."""
        return _round_trip(vectors)


def integer_attention(queries: Tensor, codes: Tensor, scales: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """Softmax attention over quantized keys and values: int8 products for scores, int16 by int8 for values.

    Args:
        queries: (batch, heads, new, head_width), quantized here with a scale each.
        codes: int8 keys and values (batch, used, heads, 2, head_width).
        scales: of the codes, (batch, used, heads, 2, 1).
        scale: of the scores.
        mask: added to the scores; None if every query sees every entry.

    Returns:
        (batch, heads, new, head_width).
    """
    keys, values = codes.transpose(1, 2).unbind(3)
    key_scales, value_scales = scales.squeeze(-1).transpose(1, 2)[:, :, None].unbind(-1)
    query_codes, query_scales = quantize_rows(queries)
    scores = _integer_products(query_codes, keys.mT) * (query_scales * scale) * key_scales
    scores = scores if mask is None else scores + mask
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    scaled = weights * value_scales
    weight_scales = scaled.amax(-1, keepdim=True) / LARGEST_WEIGHT
    weight_codes = scaled.div(weight_scales.clamp_min(torch.finfo(torch.float32).tiny)).round_()
    mixed = _integer_products(weight_codes, values) * (weight_scales / weights.sum(-1, keepdim=True))
    return mixed.to(queries.dtype)


def _integer_products(first: Tensor, second: Tensor) -> Tensor:
    """Matrix products of integers in float32, as `modeling.layers.int8.integer_product`: exact below 2^24."""
    return first.float() @ second.float()


def _round_trip(vectors: Tensor) -> Tensor:
    """Keys and values (..., head_width) as an `Int8LayerCache` returns them; rounding them again changes no code."""
    codes, scales = quantize_rows(vectors)
    return codes.to(vectors.dtype).mul_(scales)
