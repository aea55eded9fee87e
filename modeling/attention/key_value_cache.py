"""Key-value cache: what attention keeps of earlier tokens, so that only new tokens are computed in decode.

- `DecoderCache`: of a network, for a batch whose rows may differ in length
- `LayerCache`: keys and values of one layer, allocated once
- `CacheStep`: slots of new entries and what the new tokens see; the same for all layers of one kind of attention
- `CacheUse`: both, for one layer in one forward pass

Full attention keeps every token; a window keeps the newest; pooled attention keeps the newest exactly, bounded numbers
of entries of its finer levels, and all entries of its coarsest level. Each section is a ring buffer: entries that no
query can see any more are overwritten. For use without gradient.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from modeling.attention.kinds import AttentionKind, FullAttention, PooledAttention, WindowAttention
from modeling.attention.tiles import level_strides

MAX_NEW_TOKENS = 64
"""New tokens at a time after the cached ones; the rings have this much room beside the visible entries."""


class LayerCache:
    """Keys and values of one layer: a section for each level, (batch, entries, heads, 2, head_width).

    The memory is allocated at the first write, so that a cache that is replaced by another kind costs nothing.
    """

    def __init__(self, capacities: Sequence[int], batch: int, heads: int, head_width: int, like: Tensor) -> None:
        """Create an empty cache on the device and in the dtype of `like`; sections have an extra slot for padding."""
        self._slots = [capacity + 1 for capacity in capacities]
        self._shape = (batch, sum(self._slots), heads, 2, head_width)
        self._like = like.new_empty(0)

    def write(self, level: int, entries: Tensor, slots: "CacheSlots") -> None:
        """Write (batch, new, heads, 2, head_width) entries of a level to these slots."""
        self._sections[level][slots] = entries

    def read(self, level: int, slots: "CacheSlots") -> Tensor:
        """Entries of a level in these slots."""
        entries: Tensor = self._sections[level][slots]
        return entries

    def keys_and_values(self, used: int) -> Tensor:
        """The first `used` slots of all sections together, (batch, used, heads, 2, head_width)."""
        return self._entries[:, :used]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        self._entries = self._entries[list(rows)]
        self._shape = (len(rows), *self._shape[1:])
        self.__dict__.pop("_sections", None)

    def tensors(self) -> tuple[Tensor, Tensor | None]:
        """All entries (batch, slots, heads, 2, head_width), and their scales if they are int8."""
        return self._entries, None

    @property
    def bytes(self) -> int:
        """Bytes allocated, however many tokens are cached."""
        return math.prod(self._shape) * self._like.element_size()

    @cached_property
    def _entries(self) -> Tensor:
        return self._like.new_zeros(self._shape)

    @cached_property
    def _sections(self) -> tuple[Tensor, ...]:
        return torch.split(self._entries, self._slots, dim=1)


CacheSlots = tuple[slice | Tensor, slice | Tensor]
"""Index of the first two dimensions of a section: slices if all rows have the same slots, else tensors."""


@dataclass(frozen=True)
class Pooled:
    """Blocks of entries that the new tokens complete, pooled into the next level."""

    sources: CacheSlots
    """In the section of the finer level, (rows, blocks, ratio)."""
    targets: CacheSlots
    """In the section of the pooled level, (rows, blocks)."""


@dataclass(frozen=True)
class CacheStep:
    """Update and visible entries of the caches of one kind of attention, for new tokens."""

    tokens: CacheSlots
    """Slots of the new tokens' keys and values."""
    pooled: tuple[Pooled | None, ...]
    """For each pooled level; None if no row completes a block."""
    used: int
    """Slots that may be visible."""
    mask: Tensor | None
    """(batch, 1, new tokens, used): the logarithm of a visible entry's stride, -inf for others.

    None if every new token sees all `used` slots."""


class SlotTable:
    """The entry in each slot of the sections; the same for all layers of one kind of attention."""

    def __init__(self, kind: AttentionKind, batch: int, capacity: int, like: Tensor) -> None:
        self.kind = kind
        self.strides = level_strides(kind)
        self.capacities = section_capacities(kind, capacity)
        self._entries = [torch.full((batch, size + 1), -1) for size in self.capacities]
        self._device, self._dtype = like.device, like.dtype

    def advance(self, lengths: Tensor, counts: Tensor, new: int) -> CacheStep:
        """Append `new` tokens, of which `counts` of each row count, to rows of these `lengths`."""
        rows = torch.arange(len(lengths))[:, None]
        tokens = self._claim(0, lengths, counts, new)
        pooled: list[Pooled | None] = []
        for level, (finer, stride) in enumerate(pairwise(self.strides), start=1):
            blocks = (lengths + counts) // stride - lengths // stride
            max_blocks = int(blocks.max())
            if not max_blocks:
                pooled.append(None)
                continue
            ratio = stride // finer
            first = (lengths // stride)[:, None, None] + torch.arange(max_blocks)[:, None]
            sources = (first * ratio + torch.arange(ratio)) % self.capacities[level - 1]
            targets = self._claim(level, lengths // stride, blocks, max_blocks)
            pooled.append(Pooled((rows[..., None].to(self._device), sources.to(self._device)), targets))
        return CacheStep(tokens, tuple(pooled), *self._visible(lengths, counts, new))

    def fill(self, lengths: Tensor, new: int) -> list[CacheSlots]:
        """Put the first `new` tokens of every row, `lengths` of which count, into each level's slots."""
        empty = torch.zeros_like(lengths)
        return [
            self._claim(level, empty, lengths // stride, new // stride) for level, stride in enumerate(self.strides)
        ]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        self._entries = [entries[list(rows)] for entries in self._entries]

    def assign_in_order(self) -> None:
        """Assign entry i to slot i, for a caller that writes to the slots of full attention itself."""
        assert isinstance(self.kind, FullAttention)
        self._entries[0][:, :-1] = torch.arange(self.capacities[0])

    def _claim(self, level: int, lengths: Tensor, counts: Tensor, new: int) -> CacheSlots:
        """Slots of `new` entries after the first `lengths`; padding and overwritten entries go to the last slot."""
        capacity, entries = self.capacities[level], self._entries[level]
        first, count = int(lengths[0]), int(counts[0])
        if count == new <= capacity - first % capacity and bool((lengths == first).all() & (counts == count).all()):
            slot = first % capacity
            entries[:, slot : slot + new] = torch.arange(first, first + new)
            return slice(None), slice(slot, slot + new)
        new_entries = lengths[:, None] + torch.arange(new)
        ends = (lengths + counts)[:, None]
        kept = (new_entries < ends) & (new_entries >= ends - capacity)
        slots = torch.where(kept, new_entries % capacity, capacity)
        rows = torch.arange(len(lengths))[:, None]
        entries[rows, slots] = torch.where(kept, new_entries, -1)
        return rows.to(self._device), slots.to(self._device)

    def _visible(self, lengths: Tensor, counts: Tensor, new: int) -> tuple[int, Tensor | None]:
        longest = int((lengths + counts).max())
        if isinstance(self.kind, FullAttention) and new == 1 and bool((lengths + counts == longest).all()):
            return longest, None
        positions = lengths[:, None] + torch.arange(new)
        borders = self.kind.borders(positions)
        uppers = [positions + 1, *borders]
        masks = []
        for held, stride, lower, upper in zip(self._entries, self.strides, borders, uppers, strict=False):
            entries = held[:, None]
            seen = (entries >= (lower // stride)[..., None]) & (entries < (upper // stride)[..., None])
            if stride == 1 and isinstance(self.kind, PooledAttention) and self.kind.strided:
                seen |= self.kind.strided_sees(positions[..., None], entries) & (entries >= 0)
            masks.append(torch.where(seen, math.log(stride), -torch.inf))
        # Slots of full attention are used in order; the rings of other kinds are small.
        used = longest if isinstance(self.kind, FullAttention) else sum(mask.shape[-1] for mask in masks)
        return used, torch.cat(masks, dim=-1)[:, None, :, :used].to(self._device, self._dtype)


def section_capacities(kind: AttentionKind, capacity: int) -> list[int]:
    """Entries of each level that may be needed at the same time, for rows of up to `capacity` tokens."""
    if isinstance(kind, FullAttention):
        return [capacity]
    if isinstance(kind, WindowAttention):
        return [min(capacity, kind.window + MAX_NEW_TOKENS)]
    # An entry exists as soon as its block is complete, but is visible only when all finer levels have moved past it.
    reach = kind.window + kind.levels[0].stride + MAX_NEW_TOKENS
    sections = [capacity if kind.strided else min(capacity, reach)]
    for level, coarser in pairwise(kind.levels):
        assert level.entries is not None
        reach += level.entries * level.stride + coarser.stride
        sections.append(min(capacity, reach) // level.stride + 1)
    return [*sections, capacity // kind.levels[-1].stride + 1]


class DecoderCache:
    """The caches of all layers, and the number of tokens in each row."""

    def __init__(
        self,
        kinds: Sequence[AttentionKind],
        batch: int,
        capacity: int,
        heads: Sequence[int],
        head_width: int,
        like: Tensor,
    ) -> None:
        """Create an empty cache for rows of up to `capacity` tokens.

        Args:
            kinds: attention of each layer.
            batch: rows.
            capacity: largest number of tokens in a row.
            heads: of each layer.
            head_width: numbers per head.
            like: a tensor on the cache's device and in its dtype.
        """
        self.capacity = capacity
        self.lengths = torch.zeros(batch, dtype=torch.int64)
        """Tokens of each row, on the CPU."""
        self._tables = {kind: SlotTable(kind, batch, capacity, like) for kind in kinds}
        self._kinds = list(kinds)
        self.layers = [
            LayerCache(self._tables[kind].capacities, batch, layer_heads, head_width, like)
            for kind, layer_heads in zip(self._kinds, heads, strict=True)
        ]

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.lengths.max())

    @property
    def bytes(self) -> int:
        """Bytes allocated, however many tokens are cached."""
        return sum(layer.bytes for layer in self.layers)

    def extend(self, counts: Tensor, new: int) -> list["CacheUse"]:
        """Append `new` tokens to each row, of which the first `counts` (batch,) count; returns each layer's slots."""
        assert int((self.lengths + counts).max()) <= self.capacity, "generation starts a new cache before one overflows"
        tables = self._tables.items()
        steps: dict[AttentionKind, CacheStep | list[CacheSlots]]
        if self.longest == 0:
            steps = {kind: table.fill(counts, new) for kind, table in tables}
        else:
            steps = {kind: table.advance(self.lengths, counts, new) for kind, table in tables}
        self.lengths = self.lengths + counts
        return [CacheUse(layer, steps[kind]) for layer, kind in zip(self.layers, self._kinds, strict=True)]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, whose texts continue."""
        self.lengths = self.lengths[list(rows)]
        for table in self._tables.values():
            table.keep(rows)
        for layer in self.layers:
            layer.keep(rows)

    def assign_in_order(self) -> None:
        """`SlotTable.assign_in_order` for all layers."""
        for table in self._tables.values():
            table.assign_in_order()


@dataclass(frozen=True)
class CacheUse:
    """A layer's cache in one forward pass."""

    layer: LayerCache
    step: CacheStep | list[CacheSlots]
    """The step of the new tokens; or, if they are the first, the slots of each level's entries."""
