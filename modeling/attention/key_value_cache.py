"""What attention keeps of the tokens it has seen, so that the next one costs one position and not all.

- `DecoderCache`: of a network, for a batch whose rows may differ in length
- `LayerCache`: keys and values of one layer, in room made once
- `CacheStep`: where new entries go and what the new tokens see; the same for all layers of one kind of attention

Full attention keeps every token; a window keeps the newest; pooled attention keeps the newest exactly, bounded numbers
of entries of its finer levels, and the entries of its coarsest level. Each is a ring: what no query can see is
overwritten. For use without gradient.
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

PIECE = 64
"""Most new tokens at a time behind what a cache holds; rings have room for so many beside what is seen."""


class LayerCache:
    """Keys and values of one layer: a section for each level, (batch, entries, heads, 2, head_width).

    The memory is taken when the first entries come, so that a cache whose place another kind takes costs nothing.
    """

    def __init__(self, capacities: Sequence[int], batch: int, heads: int, head_width: int, like: Tensor) -> None:
        """Make an empty cache on the device and in the dtype of `like`; a section has one place more, for padding."""
        self._places = [capacity + 1 for capacity in capacities]
        self._shape = (batch, sum(self._places), heads, 2, head_width)
        self._like = like.new_empty(0)

    def write(self, level: int, entries: Tensor, places: "CacheSlots") -> None:
        """Put (batch, new, heads, 2, head_width) entries of a level where they belong."""
        self._sections[level][places] = entries

    def read(self, level: int, places: "CacheSlots") -> Tensor:
        """Entries of a level."""
        entries: Tensor = self._sections[level][places]
        return entries

    def keys_and_values(self, used: int) -> Tensor:
        """The first `used` places of all sections together, (batch, used, heads, 2, head_width)."""
        return self._entries[:, :used]

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all other rows."""
        self._entries = self._entries[list(rows)]
        self._shape = (len(rows), *self._shape[1:])
        self.__dict__.pop("_sections", None)

    def memory(self) -> tuple[Tensor, Tensor | None]:
        """All entries (batch, places, heads, 2, head_width), and their scales where there are any."""
        return self._entries, None

    @property
    def bytes(self) -> int:
        """Memory that the cache takes, whatever it holds."""
        return math.prod(self._shape) * self._like.element_size()

    @cached_property
    def _entries(self) -> Tensor:
        return self._like.new_zeros(self._shape)

    @cached_property
    def _sections(self) -> tuple[Tensor, ...]:
        return torch.split(self._entries, self._places, dim=1)


CacheSlots = tuple[slice | Tensor, slice | Tensor]
"""Index of the first two dimensions of a section: slices where all rows have the same places, else tensors."""


@dataclass(frozen=True)
class Pooled:
    """Blocks of a level's entries that the new tokens complete."""

    sources: CacheSlots
    """In the section of the finer level, (rows, blocks, ratio)."""
    targets: CacheSlots


@dataclass(frozen=True)
class CacheStep:
    """What new tokens mean for the caches of one kind of attention."""

    tokens: CacheSlots
    """Where their keys and values go."""
    pooled: tuple[Pooled | None, ...]
    """For each pooled level; None where no row completes a block."""
    used: int
    """Places that may be seen."""
    mask: Tensor | None
    """(batch, 1, new tokens, used): the logarithm of the entry's stride where it is seen, -inf elsewhere.

    None where every new token sees all `used` places."""


class KindState:
    """Which entry each place of the sections holds; the same for all layers of a kind."""

    def __init__(self, kind: AttentionKind, batch: int, capacity: int, like: Tensor) -> None:
        self.kind = kind
        self.strides = level_strides(kind)
        self.capacities = section_capacities(kind, capacity)
        self._indices = [torch.full((batch, size + 1), -1) for size in self.capacities]
        self._device, self._dtype = like.device, like.dtype

    def advance(self, lengths: Tensor, counts: Tensor, new: int) -> CacheStep:
        """Take `new` more tokens, of which `counts` of each row count, behind the `lengths` there are."""
        rows = torch.arange(len(lengths))[:, None]
        tokens = self._claim(0, lengths, counts, new)
        pooled: list[Pooled | None] = []
        for level, (finer, stride) in enumerate(pairwise(self.strides), start=1):
            blocks = (lengths + counts) // stride - lengths // stride
            most = int(blocks.max())
            if not most:
                pooled.append(None)
                continue
            ratio = stride // finer
            first = (lengths // stride)[:, None, None] + torch.arange(most)[:, None]
            sources = (first * ratio + torch.arange(ratio)) % self.capacities[level - 1]
            targets = self._claim(level, lengths // stride, blocks, most)
            pooled.append(Pooled((rows[..., None].to(self._device), sources.to(self._device)), targets))
        return CacheStep(tokens, tuple(pooled), *self._visible(lengths, counts, new))

    def fill(self, lengths: Tensor, new: int) -> list[CacheSlots]:
        """Take the first `new` tokens of every row, `lengths` of which count: where the entries of each level go."""
        nothing = torch.zeros_like(lengths)
        return [
            self._claim(level, nothing, lengths // stride, new // stride) for level, stride in enumerate(self.strides)
        ]

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all other rows."""
        self._indices = [indices[list(rows)] for indices in self._indices]

    def fill_up_indices(self) -> None:
        """Let place i hold entry i, for who writes to the places of full attention by itself."""
        assert isinstance(self.kind, FullAttention)
        self._indices[0][:, :-1] = torch.arange(self.capacities[0])

    def _claim(self, level: int, held: Tensor, counts: Tensor, new: int) -> CacheSlots:
        """Places of `new` entries behind the `held` ones; those that do not count or are overwritten go to the last."""
        capacity, indices = self.capacities[level], self._indices[level]
        first, count = int(held[0]), int(counts[0])
        if count == new <= capacity - first % capacity and bool((held == first).all() & (counts == count).all()):
            place = first % capacity
            indices[:, place : place + new] = torch.arange(first, first + new)
            return slice(None), slice(place, place + new)
        entries = held[:, None] + torch.arange(new)
        ends = (held + counts)[:, None]
        kept = (entries < ends) & (entries >= ends - capacity)
        places = torch.where(kept, entries % capacity, capacity)
        rows = torch.arange(len(held))[:, None]
        indices[rows, places] = torch.where(kept, entries, -1)
        return rows.to(self._device), places.to(self._device)

    def _visible(self, lengths: Tensor, counts: Tensor, new: int) -> tuple[int, Tensor | None]:
        longest = int((lengths + counts).max())
        if isinstance(self.kind, FullAttention) and new == 1 and bool((lengths + counts == longest).all()):
            return longest, None
        positions = lengths[:, None] + torch.arange(new)
        borders = self.kind.borders(positions)
        uppers = [positions + 1, *borders]
        masks = []
        for indices, stride, lower, upper in zip(self._indices, self.strides, borders, uppers, strict=False):
            entries = indices[:, None]
            seen = (entries >= (lower // stride)[..., None]) & (entries < (upper // stride)[..., None])
            if stride == 1 and isinstance(self.kind, PooledAttention) and self.kind.strided:
                seen |= self.kind.strided_sees(positions[..., None], entries) & (entries >= 0)
            masks.append(torch.where(seen, math.log(stride), -torch.inf))
        # Full attention's places fill up in order; the others' rings are small.
        used = longest if isinstance(self.kind, FullAttention) else sum(mask.shape[-1] for mask in masks)
        return used, torch.cat(masks, dim=-1)[:, None, :, :used].to(self._device, self._dtype)


def section_capacities(kind: AttentionKind, capacity: int) -> list[int]:
    """Entries of each level that may be needed at one time, for rows of at most `capacity` tokens."""
    if isinstance(kind, FullAttention):
        return [capacity]
    if isinstance(kind, WindowAttention):
        return [min(capacity, kind.window + PIECE)]
    # An entry is there as soon as its block is complete, but seen only when all finer levels have moved past it.
    reach = kind.window + kind.levels[0].stride + PIECE
    sections = [capacity if kind.strided else min(capacity, reach)]
    for level, coarser in pairwise(kind.levels):
        assert level.entries is not None
        reach += level.entries * level.stride + coarser.stride
        sections.append(min(capacity, reach) // level.stride + 1)
    return [*sections, capacity // kind.levels[-1].stride + 1]


class DecoderCache:
    """The caches of all layers, and how many tokens each row holds."""

    def __init__(
        self,
        kinds: Sequence[AttentionKind],
        batch: int,
        capacity: int,
        heads: Sequence[int],
        head_width: int,
        like: Tensor,
    ) -> None:
        """Make an empty cache for rows of at most `capacity` tokens, on the device and in the dtype of `like`.

        Args:
            kinds: attention of each layer.
            batch: rows.
            capacity: most tokens of a row.
            heads: of each layer.
            head_width: numbers per head.
            like: a tensor on the device and in the dtype that is wanted.
        """
        self.capacity = capacity
        self.lengths = torch.zeros(batch, dtype=torch.int64)
        """Tokens of each row, on the CPU."""
        self._states = {kind: KindState(kind, batch, capacity, like) for kind in kinds}
        self._kinds = list(kinds)
        self.layers = [
            LayerCache(self._states[kind].capacities, batch, here, head_width, like)
            for kind, here in zip(self._kinds, heads, strict=True)
        ]

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.lengths.max())

    @property
    def bytes(self) -> int:
        """Memory that the caches take, whatever they hold."""
        return sum(layer.bytes for layer in self.layers)

    def extend(self, counts: Tensor, new: int) -> list["CacheUse"]:
        """Append `new` tokens to each row, of which the first `counts` (batch,) count; each layer's part in it."""
        assert int((self.lengths + counts).max()) <= self.capacity, "generation starts a new cache before one overflows"
        states = self._states.items()
        steps: dict[AttentionKind, CacheStep | list[CacheSlots]]
        if self.longest == 0:
            steps = {kind: state.fill(counts, new) for kind, state in states}
        else:
            steps = {kind: state.advance(self.lengths, counts, new) for kind, state in states}
        self.lengths = self.lengths + counts
        return [CacheUse(layer, steps[kind]) for layer, kind in zip(self.layers, self._kinds, strict=True)]

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these, whose texts go on."""
        self.lengths = self.lengths[list(rows)]
        for state in self._states.values():
            state.keep(rows)
        for layer in self.layers:
            layer.keep(rows)

    def fill_up_indices(self) -> None:
        """As `KindState`'s, in all layers."""
        for state in self._states.values():
            state.fill_up_indices()


@dataclass(frozen=True)
class CacheUse:
    """A layer's cache in one forward pass."""

    layer: LayerCache
    step: CacheStep | list[CacheSlots]
    """What the new tokens do; or where the entries of each level go, if they are the first."""
