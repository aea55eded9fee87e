"""Which candidates are near duplicates: by the share of equal signature values, then by their sets of shingles.

- `check_signatures`: pairs decided by exact hash or signature, and pairs left open for the true Jaccard similarity
- `check_shingles`: those, by the sets of shingle hashes
- `ShingleReader`: such sets by document number, over many files
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.dedup.near_duplicates.minhash import Signatures
from stages.dedup.near_duplicates.minhash_config import MinHashConfig
from stages.dedup.near_duplicates.signature_index import SignatureReader, SignedRows
from stages.dedup.part_files import Numbers, PartFile, column_of, open_table

EDGES = pa.schema([("one", pa.int64()), ("other", pa.int64()), ("similarity", pa.float64())])
"""Near duplicates by number, `one` the smaller; the similarity is NaN where nothing was measured."""
OPEN_PAIRS = pa.schema([("pair", pa.int64())])
SHINGLE_SETS = pa.schema([("document", pa.int64()), ("shingles", pa.large_list(pa.uint32()))])
DEVIATIONS = 4
"""Of the signature's estimate below the threshold, from where a pair is not worth its sets: 3 in 100,000 are lost."""
PAIRS_AT_ONCE = 1 << 16
"""Both signatures of a pair are 1 kB; this bounds what a check copies to 64 MB."""
SHINGLES_AT_ONCE = 1 << 24
"""In the sets of the pairs that are compared at once: 64 MB of uint32."""


class Decided(NamedTuple):
    """What the signatures say of some candidates."""

    edges: pa.RecordBatch
    """`EDGES` that are certain enough."""
    open_pairs: Numbers
    """Those to be compared by their sets."""


def distinct_pairs(sources: Sequence[Numbers], first: int, end: int, total: int) -> Iterator[Numbers]:
    """Merge ascending lists of pairs whose smaller document is in `first` ... `end`: distinct, some at a time.

    The range is halved until the pairs of one half fit; the pairs of a single document always do.
    """
    bounds = [np.searchsorted(pairs, (first * total, end * total)) for pairs in sources]
    count = sum(int(stop - start) for start, stop in bounds)
    if count > PAIRS_AT_ONCE and end - first > 1:
        middle = (first + end) // 2
        yield from distinct_pairs(sources, first, middle, total)
        yield from distinct_pairs(sources, middle, end, total)
    elif count:
        pieces = [pairs[start:stop] for pairs, (start, stop) in zip(sources, bounds, strict=True)]
        yield np.unique(np.concatenate(pieces))


def check_signatures(
    pairs: Numbers, total: int, new_documents: int, reader: SignatureReader, near: MinHashConfig
) -> Decided:
    """Decide candidates by exact hash and signature as far as `near.verify` allows.

    Args:
        pairs: one x `total` + other.
        total: how many documents there are.
        new_documents: those numbered below have texts at hand; the others are judged by their signature.
        reader: of all signatures.
        near: the threshold and the way to check.
    """
    one, other = np.divmod(pairs, total)
    numbers, places = np.unique(np.concatenate([one, other]), return_inverse=True)
    rows = reader.rows(numbers)
    first, second = places[: len(pairs)], places[len(pairs) :]
    agreement, identical = _agreement(rows, first, second)
    if near.verify == "none":
        return Decided(edges_batch(one, other, np.where(identical, 1.0, np.nan)), pairs[:0])
    certain = identical | (agreement >= near.similarity)
    left_open = np.zeros(len(pairs), dtype=bool)
    if near.verify == "jaccard":
        deviation = np.sqrt(near.similarity * (1 - near.similarity) / near.permutations)
        has_texts = (other < new_documents) & ~identical
        left_open = has_texts & (agreement >= near.similarity - DEVIATIONS * deviation)
        certain &= ~has_texts
    found = edges_batch(one[certain], other[certain], np.where(identical, 1.0, agreement)[certain])
    return Decided(found, pairs[left_open])


def _agreement(
    rows: SignedRows, first: Numbers, second: Numbers
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Share of equal signature values, and whether the texts are equal but for case and white space."""
    agreement = np.empty(len(first))
    _share_equal(rows.signatures, first, second, agreement)
    return agreement, (rows.exact[first] == rows.exact[second]).all(axis=1)


def edges_batch(one: Numbers, other: Numbers, similarity: npt.NDArray[np.float64]) -> pa.RecordBatch:
    """Edges as a record batch."""
    return pa.record_batch([pa.array(one), pa.array(other), pa.array(similarity)], schema=EDGES)


@numba.njit(cache=True, nogil=True)
def _share_equal(signatures: Signatures, first: Numbers, second: Numbers, found: npt.NDArray[np.float64]) -> None:
    width = signatures.shape[1]
    for pair in range(len(first)):
        a, b = signatures[first[pair]], signatures[second[pair]]
        equal = 0
        for place in range(width):
            equal += a[place] == b[place]
        found[pair] = equal / width


@dataclass(frozen=True)
class ShingleFile:
    """Sets of some documents of a file, whose numbers are from `first` to before `end`."""

    part: PartFile
    first: int
    end: int


class ShingleReader:
    """Sets of shingle hashes by document number."""

    def __init__(self, files: Sequence[ShingleFile]) -> None:
        self._files = files

    def sets(self, numbers: Numbers) -> tuple[Signatures, Numbers]:
        """The sets of documents of these ascending numbers, one after the other, and where each begins and ends."""
        values, lengths = [np.empty(0, dtype=np.uint32)], [np.zeros(1, dtype=np.int64)]
        for file in self._files:
            wanted = numbers[np.searchsorted(numbers, file.first) : np.searchsorted(numbers, file.end)]
            if len(wanted):
                table = open_table(file.part)
                rows = np.searchsorted(column_of(table, "document"), wanted)
                lists = table.column("shingles").take(pa.array(rows)).combine_chunks()
                values.append(lists.flatten().to_numpy())
                lengths.append(np.diff(lists.offsets.to_numpy()))
        return np.concatenate(values), np.cumsum(np.concatenate(lengths))


def check_shingles(
    pairs: Numbers, total: int, signatures: SignatureReader, shingles: ShingleReader, similarity: float
) -> Iterator[pa.RecordBatch]:
    """`EDGES` of the pairs whose sets have a Jaccard similarity of at least `similarity`, some pairs at a time."""
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        some = pairs[start : start + PAIRS_AT_ONCE]
        one, other = np.divmod(some, total)
        numbers, places = np.unique(np.concatenate([one, other]), return_inverse=True)
        sizes = signatures.rows(numbers).shingles[places]
        weight = np.cumsum(sizes[: len(some)] + sizes[len(some) :])
        group = weight // SHINGLES_AT_ONCE
        for piece in np.split(np.arange(len(some)), np.flatnonzero(np.diff(group)) + 1):
            yield _compared(one[piece], other[piece], shingles, similarity)


def _compared(one: Numbers, other: Numbers, shingles: ShingleReader, similarity: float) -> pa.RecordBatch:
    numbers, places = np.unique(np.concatenate([one, other]), return_inverse=True)
    values, bounds = shingles.sets(numbers)
    measured = np.empty(len(one))
    _jaccard(values, bounds, places[: len(one)], places[len(one) :], measured)
    near = measured >= similarity
    return edges_batch(one[near], other[near], measured[near])


@numba.njit(cache=True, nogil=True)
def _jaccard(
    values: Signatures, bounds: Numbers, first: Numbers, second: Numbers, found: npt.NDArray[np.float64]
) -> None:
    """|A and B| / |A or B| by merging the ascending sets."""
    for pair in range(len(first)):
        a, a_end = bounds[first[pair]], bounds[first[pair] + 1]
        b, b_end = bounds[second[pair]], bounds[second[pair] + 1]
        together, common = (a_end - a) + (b_end - b), 0
        while a < a_end and b < b_end:
            one, other = values[a], values[b]
            common += one == other
            a += one <= other
            b += other <= one
        found[pair] = common / (together - common)
