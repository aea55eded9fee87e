"""Tiles of attention: any kind of attention as a list of dense blocks of queries and keys. Imports no torch.

- `row_tiles`: for rows that are one document each; `document_tiles`: for rows of several documents, or parts of rows
- `computed_scores`: products of a query and a key in all tiles, including masked ones

A tile is a chunk of consecutive queries and the keys of one level that any of them sees. Small chunks waste fewer
masked products, large ones run faster: 4,096 tokens, window 256, forward and backward on two AVX2 cores took
185, 200 and 243 ms with chunks of 64, 128 and 256 queries (full attention: 908 ms).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from modeling.attention.kinds import AttentionKind, FullAttention, PooledAttention, pool_levels

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class VisibleKeys:
    """Keys of a tile that each query sees: [first, stop), int32 (rows, queries) as bytes, so that they are hashable."""

    first: bytes
    stop: bytes
    rows: int
    """1 if all rows of the batch see the same keys."""
    keys: int
    strided: int = 0
    """If above 0, each query also sees the keys 2, 3, 4 ... times this before it, back to `starts`."""
    starts: bytes = b""


@dataclass(frozen=True)
class Tile:
    """Queries [first_query, query_stop) and entries [first_key, key_stop) of a level: 0 tokens, 1 ... pooled."""

    level: int
    first_query: int
    query_stop: int
    first_key: int
    key_stop: int
    visible: VisibleKeys | None = None
    """None if every query sees every key, or those up to its own position if `causal`."""
    causal: bool = False
    phases: int = 1
    """If above 1, a query sees only keys whose positions equal its own modulo this."""

    @property
    def scores(self) -> int:
        """Products of a query and a key, including masked ones."""
        keys_per_query = -(-(self.key_stop - self.first_key) // self.phases)
        return (self.query_stop - self.first_query) * keys_per_query


@lru_cache(maxsize=256)
def row_tiles(kind: AttentionKind, length: int) -> tuple[Tile, ...]:
    """Tiles of rows of `length` tokens, the exact tokens' first.

    Every query sees the keys within its `kind.borders`, each in exactly one tile.
    """
    if isinstance(kind, FullAttention) or length <= kind.window:
        return (Tile(0, 0, length, 0, length, causal=True),)
    tiles = list(_level_tiles(kind, np.arange(length)[None], np.zeros((1, length), dtype=np.int64)))
    if distance := _strided_distance(kind):
        tiles += _strided_tiles(distance, length)
    return tuple(tiles)


def document_tiles(kind: AttentionKind, starts: Integers, first_query: int = 0) -> Iterator[Tile]:
    """Tiles of rows of several documents, or of a part of the queries; borders count from each document's start.

    A tile covers all rows, with the mask of each row's documents: a tile for each document costs more if documents are
    short. Single tokens of the strided pattern are masked products here.

    Args:
        kind: of attention.
        starts: (rows, queries), position of the first token of each query's document.
        first_query: position of the first query in the row; tiles count queries from it.
    """
    positions = first_query + np.arange(starts.shape[1]) - starts
    return _level_tiles(kind, positions, starts, _strided_distance(kind))


def computed_scores(kind: AttentionKind, length: int) -> int:
    """Products of a query and a key that attention over `length` tokens computes, including masked ones."""
    return sum(tile.scores for tile in row_tiles(kind, length))


def level_strides(kind: AttentionKind) -> list[int]:
    """Tokens per entry of each level: 1, then the pooled levels' strides."""
    return [1, *(level.stride for level in pool_levels(kind))]


def level_start(start: Integers | int, stride: int) -> Integers | int:
    """Index of a document's first entry in a level, in which the entries of a row's documents follow one another."""
    return -(-start // stride)


def _strided_distance(kind: AttentionKind) -> int:
    """Tokens between the single tokens of the strided pattern; 0 if the kind has none."""
    return kind.window if isinstance(kind, PooledAttention) and kind.strided else 0


def _level_tiles(kind: AttentionKind, positions: Integers, starts: Integers, strided: int = 0) -> Iterator[Tile]:
    """Tiles of all levels; `positions` (rows, queries) are positions in the documents."""
    borders = kind.borders(positions)
    uppers = [positions + 1, *borders]
    for level, (lower, upper, stride) in enumerate(zip(borders, uppers, level_strides(kind), strict=False)):
        offset = level_start(starts, stride)
        first, stop = offset + lower // stride, offset + upper // stride
        chunk = _chunk_queries(kind, level, stride)
        for start in range(0, positions.shape[1], chunk):
            queries = slice(start, min(start + chunk, positions.shape[1]))
            if strided and level == 0:
                yield _strided_tile(queries, first[:, queries], stop[:, queries], starts[:, queries], strided)
            else:
                yield from _chunk_tiles(level, queries, first[:, queries], stop[:, queries])


def _chunk_queries(kind: AttentionKind, level: int, stride: int) -> int:
    """Queries per tile: half a window of exact tokens, 16 entries of a pooled level, within the fastest range."""
    if isinstance(kind, FullAttention):
        return 256
    return min(max(kind.window // 2, 64), 256) if level == 0 else min(max(16 * stride, 256), 2048)


def _chunk_tiles(level: int, queries: slice, first: Integers, stop: Integers) -> Iterator[Tile]:
    """One tile, or two if all queries see many of the pooled keys: those need no mask."""
    lowest, highest = int(first.min()), int(stop.max())
    same_first = level > 0 and len(first) == 1 and int(first.max()) == lowest
    seen_by_all = int(stop[0, 0]) if same_first else lowest
    if seen_by_all > lowest:
        yield Tile(level, queries.start, queries.stop, lowest, seen_by_all)
    if highest > seen_by_all:
        first = np.maximum(first - seen_by_all, 0)
        visible = VisibleKeys(_as_bytes(first), _as_bytes(stop - seen_by_all), len(first), highest - seen_by_all)
        yield Tile(level, queries.start, queries.stop, seen_by_all, highest, visible)


def _strided_tile(queries: slice, first: Integers, stop: Integers, starts: Integers, strided: int) -> Tile:
    lowest, highest = int(starts.min()), int(stop.max())
    visible = VisibleKeys(
        _as_bytes(first - lowest),
        _as_bytes(stop - lowest),
        rows=len(first),
        keys=highest - lowest,
        strided=strided,
        starts=_as_bytes(starts - lowest),
    )
    return Tile(0, queries.start, queries.stop, lowest, highest, visible)


def _as_bytes(numbers: Integers) -> bytes:
    return numbers.astype(np.int32).tobytes()


def _strided_tiles(window: int, length: int) -> Iterator[Tile]:
    """Each token and those 2, 3, 4 ... windows before it; the last, incomplete window has its own tile."""
    whole = length // window
    if whole > 2:
        yield Tile(0, 2 * window, whole * window, 0, (whole - 2) * window, causal=True, phases=window)
    if whole > 1 and length > whole * window:
        yield Tile(0, whole * window, length, 0, (whole - 1) * window, phases=window)
