"""A key-value cache in int8: three and a half times less memory per token, for all kinds of softmax attention.

Which layers have one is part of the network, so that its files say it: an `Int8CacheAttention` stands in the place of
an `Attention` and is one, but for the cache that it asks for (`Transformer.new_cache`). What matrices it has, and what
stands in their places, is as before.

- `Int8LayerCache`: the cache
- `Int8CacheAttention`, `Int8CacheLshAttention`: attention that uses it
"""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from modeling.attention.key_value_cache import CacheSlots, LayerCache, section_capacities
from modeling.attention.kinds import AttentionKind, FullAttention
from modeling.attention.lsh_attention import LshAttention
from modeling.attention.multi_head import Attention
from modeling.layers.int8 import quantize_rows

_any_kind: TypeAdapter[Any] = TypeAdapter(AttentionKind)


class Int8LayerCache:
    """As `LayerCache`, in int8 with a float32 scale for each entry's key and value in each head.

    What comes out differs from what was put in by half a scale at most: 1/254 of the key's or value's largest number.
    Entries are float again when they are read: memory is saved, not time.
    """

    def __init__(self, capacities: Sequence[int], batch: int, heads: int, head_width: int, like: Tensor) -> None:
        """Make an empty cache on the device of `like`; entries come out in its dtype."""
        self._dtype = like.dtype
        self._codes = LayerCache(capacities, batch, heads, head_width, like.new_empty(0, dtype=torch.int8))
        self._scales = LayerCache(capacities, batch, heads, 1, like.new_empty(0, dtype=torch.float32))

    def write(self, level: int, entries: Tensor, places: CacheSlots) -> None:
        """As in `LayerCache`."""
        codes, scales = quantize_rows(entries)
        self._codes.write(level, codes, places)
        self._scales.write(level, scales, places)

    def read(self, level: int, places: CacheSlots) -> Tensor:
        """As in `LayerCache`."""
        return self._codes.read(level, places).to(self._dtype).mul_(self._scales.read(level, places))

    def keys_and_values(self, used: int) -> Tensor:
        """As in `LayerCache`."""
        return self._codes.keys_and_values(used).to(self._dtype).mul_(self._scales.keys_and_values(used))

    def keep(self, rows: Sequence[int]) -> None:
        """As in `LayerCache`."""
        self._codes.keep(rows)
        self._scales.keep(rows)

    def memory(self) -> tuple[Tensor, Tensor | None]:
        """As in `LayerCache`."""
        return self._codes.memory()[0], self._scales.memory()[0]

    @property
    def bytes(self) -> int:
        """As in `LayerCache`."""
        return self._codes.bytes + self._scales.bytes


class Int8CacheAttention(Attention):
    """An `Attention` that keeps keys and values in int8."""

    mixing_bits = (8, 32)
    """Of keys and values, and of what they meet, for `modeling.evaluation.network_counts`."""

    def __init__(self, attention: dict[str, Any], width: int, heads: int, scale: float) -> None:
        """Make room.

        Args:
            attention: its kind, as in a `TransformerConfig`.
            width: numbers per token.
            heads: that numbers per head follow from, width / heads; the layer may have lost some since.
            scale: of the scores.
        """
        super().__init__(_any_kind.validate_python(attention), width, heads, scale)
        self._sizes = {"width": width, "heads": heads, "scale": scale}

    def new_state(self, batch: int, capacity: int, like: Tensor) -> Int8LayerCache:
        """An empty cache; stands in the place of the layer's float cache in `DecoderCache.layers`."""
        return Int8LayerCache(section_capacities(self.kind, capacity), batch, self.heads, self.head_width, like)

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"attention": self.kind.model_dump(mode="json"), **self._sizes}


class Int8CacheLshAttention(LshAttention):
    """An `LshAttention` that keeps keys and values in int8."""

    mixing_bits = (8, 32)
    """As of `Int8CacheAttention`."""

    def new_state(self, batch: int, capacity: int, like: Tensor) -> Int8LayerCache:
        """An empty cache; stands in the place of the layer's float cache in `DecoderCache.layers`."""
        heads = len(self.key_norms)
        return Int8LayerCache(section_capacities(FullAttention(), capacity), batch, heads, self.head_width, like)
