"""Verification of candidates: by the share of equal signature values, then by their sets of shingles.

- `check_signatures`: decides pairs by exact hash or signature; the others are open
- `check_shingles`: decides open pairs by the Jaccard similarity of their sets of shingle hashes
- `ShingleReader`: sets of shingle hashes by document number, over many files
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.common.compiled import compiled
from stages.dedup.near_duplicates.minhash import Signatures
from stages.dedup.near_duplicates.minhash_config import MinHashConfig
from stages.dedup.near_duplicates.signature_index import SignatureReader, SignedRows
from stages.dedup.part_files import Numbers, PartFile, column_of, open_table

EDGES = pa.schema([("one", pa.int64()), ("other", pa.int64()), ("similarity", pa.float64())])
"""Pairs of near duplicates by number, `one` < `other`; the similarity is NaN if it was not measured."""
OPEN_PAIRS = pa.schema([("pair", pa.int64())])
SHINGLE_SETS = pa.schema([("document", pa.int64()), ("shingles", pa.large_list(pa.uint32()))])
DEVIATIONS = 4
"""A pair is discarded if the signature's estimate is this many standard deviations below the threshold: 3 in 100,000
near duplicates are lost."""
PAIRS_AT_ONCE = 1 << 16
"""Pairs per check; both signatures of a pair are 1 kB, so a check copies up to 64 MB."""
SHINGLES_AT_ONCE = 1 << 24
"""Shingles in the sets that are compared at once: 64 MB of uint32."""


class Decided(NamedTuple):
    """Candidates decided by their signatures, and those left open."""

    edges: pa.RecordBatch
    """`EDGES` of near duplicates."""
    open_pairs: Numbers
    """Pairs to compare by their sets of shingles."""


def distinct_pairs(sources: Sequence[Numbers], first: int, end: int, total: int) -> Iterator[Numbers]:
    """Merge ascending lists of pairs whose smaller document is in [first, end) into chunks of distinct pairs.

    The range is halved until the pairs of a half fit into a chunk; the pairs of a single document always do.
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
        pairs: pairs encoded as first x `total` + second.
        total: number of documents.
        new_documents: documents with smaller numbers have texts; the others are compared by signature only.
        reader: reader of all signatures.
        near: threshold and kind of check.
    """
    first, second = np.divmod(pairs, total)
    numbers, indices = np.unique(np.concatenate([first, second]), return_inverse=True)
    rows = reader.rows(numbers)
    agreement, identical = _agreement(rows, indices[: len(pairs)], indices[len(pairs) :])
    if near.verify == "none":
        return Decided(edges_batch(first, second, np.where(identical, 1.0, np.nan)), pairs[:0])
    certain = identical | (agreement >= near.similarity)
    is_open = np.zeros(len(pairs), dtype=bool)
    if near.verify == "jaccard":
        deviation = np.sqrt(near.similarity * (1 - near.similarity) / near.permutations)
        has_texts = (second < new_documents) & ~identical
        is_open = has_texts & (agreement >= near.similarity - DEVIATIONS * deviation)
        certain &= ~has_texts
    edges = edges_batch(first[certain], second[certain], np.where(identical, 1.0, agreement)[certain])
    return Decided(edges, pairs[is_open])


def _agreement(
    rows: SignedRows, first: Numbers, second: Numbers
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Share of equal signature values, and whether the texts differ at most in case and white space."""
    agreement = np.empty(len(first))
    _share_equal(rows.signatures, first, second, agreement)
    return agreement, (rows.exact[first] == rows.exact[second]).all(axis=1)


def edges_batch(first: Numbers, second: Numbers, similarity: npt.NDArray[np.float64]) -> pa.RecordBatch:
    """Record batch of `EDGES`."""
    return pa.record_batch([pa.array(first), pa.array(second), pa.array(similarity)], schema=EDGES)


@compiled
def _share_equal(signatures: Signatures, first: Numbers, second: Numbers, shares: npt.NDArray[np.float64]) -> None:
    width = signatures.shape[1]
    for pair in range(len(first)):
        a, b = signatures[first[pair]], signatures[second[pair]]
        equal = 0
        for column in range(width):
            equal += a[column] == b[column]
        shares[pair] = equal / width


@dataclass(frozen=True)
class ShingleFile:
    """Sets of some documents of a file, whose numbers are in [first, end)."""

    part: PartFile
    first: int
    end: int


class ShingleReader:
    """Sets of shingle hashes by document number."""

    def __init__(self, files: Sequence[ShingleFile]) -> None:
        self._files = files

    def sets(self, numbers: Numbers) -> tuple[Signatures, Numbers]:
        """Concatenated sets of these documents, whose numbers must be ascending, and the offsets of each set."""
        values, lengths = [np.empty(0, dtype=np.uint32)], [np.zeros(1, dtype=np.int64)]
        for file in self._files:
            in_file = numbers[np.searchsorted(numbers, file.first) : np.searchsorted(numbers, file.end)]
            if len(in_file):
                table = open_table(file.part)
                rows = np.searchsorted(column_of(table, "document"), in_file)
                lists = table.column("shingles").take(pa.array(rows)).combine_chunks()
                values.append(lists.flatten().to_numpy())
                lengths.append(np.diff(lists.offsets.to_numpy()))
        return np.concatenate(values), np.cumsum(np.concatenate(lengths))


def check_shingles(
    pairs: Numbers, total: int, signatures: SignatureReader, shingles: ShingleReader, similarity: float
) -> Iterator[pa.RecordBatch]:
    """`EDGES` of the pairs whose sets have a Jaccard similarity of at least `similarity`, in batches."""
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        chunk = pairs[start : start + PAIRS_AT_ONCE]
        first, second = np.divmod(chunk, total)
        numbers, indices = np.unique(np.concatenate([first, second]), return_inverse=True)
        sizes = signatures.rows(numbers).shingles[indices]
        total_shingles = np.cumsum(sizes[: len(chunk)] + sizes[len(chunk) :])
        group = total_shingles // SHINGLES_AT_ONCE
        for piece in np.split(np.arange(len(chunk)), np.flatnonzero(np.diff(group)) + 1):
            yield _compared(first[piece], second[piece], shingles, similarity)


def _compared(first: Numbers, second: Numbers, shingles: ShingleReader, similarity: float) -> pa.RecordBatch:
    numbers, indices = np.unique(np.concatenate([first, second]), return_inverse=True)
    values, bounds = shingles.sets(numbers)
    measured = np.empty(len(first))
    _jaccard(values, bounds, indices[: len(first)], indices[len(first) :], measured)
    near = measured >= similarity
    return edges_batch(first[near], second[near], measured[near])


@compiled
def _jaccard(
    values: Signatures, bounds: Numbers, first: Numbers, second: Numbers, similarities: npt.NDArray[np.float64]
) -> None:
    """|A and B| / |A or B| by merging the ascending sets."""
    for pair in range(len(first)):
        a, a_end = bounds[first[pair]], bounds[first[pair] + 1]
        b, b_end = bounds[second[pair]], bounds[second[pair] + 1]
        sum_of_sizes, common = (a_end - a) + (b_end - b), 0
        while a < a_end and b < b_end:
            x, y = values[a], values[b]
            common += x == y
            a += x <= y
            b += y <= x
        similarities[pair] = common / (sum_of_sizes - common)
