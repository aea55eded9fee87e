"""What linear attention keeps of all tokens it has seen: sums, whose size the number of tokens does not change.

A state stands in `DecoderCache.layers` where a layer of softmax attention has a `LayerCache`.
"""

from collections.abc import Sequence

from torch import Tensor

from modeling.attention.key_value_cache import CacheSlots


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
