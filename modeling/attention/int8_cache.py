"""A key-value cache in int8: three and a half times less memory per token, for all kinds of softmax attention.

The cache's kind is part of the network and its files: an `Int8CacheAttention` replaces an `Attention` and differs from
it only in the cache that `Transformer.new_cache` creates for it; its matrices, or their replacements, are unchanged.

- `Int8LayerCache`: the cache
- `Int8CacheAttention`, `Int8CacheLshAttention`: attention that uses it
"""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from modeling.attention.key_value_cache import CacheSlots, CacheUse, LayerCache, section_capacities
from modeling.attention.kinds import AttentionKind
from modeling.attention.lsh_attention import LshAttention
from modeling.attention.multi_head import Attention
from modeling.documents import Documents
from modeling.layers.int8 import quantize_rows

_any_kind: TypeAdapter[Any] = TypeAdapter(AttentionKind)


class Int8LayerCache:
    """`LayerCache` in int8, with a float32 scale for each entry's key and value in each head.

    Values read differ from values written by at most half a scale: 1/254 of the key's or value's largest magnitude.
    Entries are dequantized when they are read: this saves memory, not time.
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

    def _from_start(self, projected: Tensor, documents: Documents | None, cache: CacheUse | None) -> Tensor:
        """As in `Attention`; with a cache, tokens see keys and values as it holds them, and not as they were."""
        if cache is not None:
            projected = torch.cat((projected[..., :1, :], _round_trip(projected[..., 1:, :])), dim=-2)
        return super()._from_start(projected, documents, cache)

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


def _round_trip(vectors: Tensor) -> Tensor:
    """Keys and values (..., head_width) as an `Int8LayerCache` returns them; rounding them again changes no code."""
    codes, scales = quantize_rows(vectors)
    return codes.to(vectors.dtype).mul_(scales)
