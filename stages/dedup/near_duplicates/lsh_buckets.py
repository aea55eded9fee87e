"""Locality-sensitive hashing: documents that share a band of their signature are candidates (Indyk & Motwani 1998).

- `BandLayout`: division of band keys into record batches and bucket partitions
- `band_batches`: band keys of some documents, a record batch per band and slice of keys
- `bucket_pairs`: candidate pairs of the buckets in one slice of one band

The exact hash is an additional band. The candidate pairs depend on the set of documents alone, not on their order or
partitioning: in a bucket of up to `NEIGHBORS` + 1 documents they are all pairs; in a larger one the documents are
sorted by signature and exact hash, those of equal signature are paired with the first of them, and these first
documents are paired with the next `NEIGHBORS` first documents.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.common.compiled import compiled
from stages.common.word_hashes import PRIME, Hashes, mix
from stages.dedup.near_duplicates.minhash import Signatures
from stages.dedup.near_duplicates.minhash_config import Banding
from stages.dedup.part_files import Numbers

NEIGHBORS = 64
"""Pairs per document of a large bucket. All pairs of a bucket of 100,000 boilerplate pages would be 5 billion."""
ENTRIES = 1 << 20
"""Band keys that one bucket partition sorts: about 60 MB with their documents and the copies made by sorting, and 8
bytes per candidate pair, of which there are at most `NEIGHBORS` per key."""
BAND_ENTRIES = pa.schema([("key", pa.uint64()), ("document", pa.int64())])


@dataclass(frozen=True)
class BandLayout:
    """Division of all band keys. Slices are defined by the keys' leading bits, so a bucket is in one slice."""

    banding: Banding
    slice_bits: int
    bands_per_partition: int

    @classmethod
    def of(cls, banding: Banding, documents: int) -> "BandLayout":
        """Layout for this number of documents."""
        bits = max(0, (documents - 1) // ENTRIES).bit_length()
        return cls(banding, bits, max(1, ENTRIES // max(1, documents)))

    @property
    def slices(self) -> int:
        """Record batches per band."""
        return 1 << self.slice_bits

    @property
    def all_bands(self) -> int:
        """Number of bands, the exact hash included."""
        return self.banding.bands + 1

    def partitions(self) -> list[list[int]]:
        """Indices of the record batches that each bucket partition reads from every file."""
        if self.slices > 1:
            return [[number] for number in range(self.all_bands * self.slices)]
        starts = range(0, self.all_bands, self.bands_per_partition)
        return [list(range(start, min(start + self.bands_per_partition, self.all_bands))) for start in starts]


def band_batches(
    signatures: Signatures, exact: Hashes, shingles: Numbers, documents: Numbers, layout: BandLayout
) -> Iterator[pa.RecordBatch]:
    """Yield a record batch of keys and documents per band and slice, in that order.

    Args:
        signatures: (documents, permutations).
        exact: (documents, 2).
        shingles: (documents,); documents without shingles only have the key of the exact hash.
        documents: (documents,) document numbers.
        layout: layout of the bands.
    """
    has_words = shingles > 0
    signed, numbers = signatures[has_words], documents[has_words]
    for band in range(layout.banding.bands):
        keys = np.empty(len(signed), dtype=np.uint64)
        _band_keys(signed, band * layout.banding.rows, layout.banding.rows, keys)
        yield from _sliced(keys, numbers, layout)
    yield from _sliced(np.ascontiguousarray(exact[:, 0]), documents, layout)


def _sliced(keys: Hashes, documents: Numbers, layout: BandLayout) -> Iterator[pa.RecordBatch]:
    order = np.argsort(keys)
    keys, documents = keys[order], documents[order]
    width = 64 - layout.slice_bits
    firsts = np.array([number << width for number in range(1, layout.slices)], dtype=np.uint64)
    bounds = [0, *np.searchsorted(keys, firsts).tolist(), len(keys)]
    for begin, end in itertools.pairwise(bounds):
        yield pa.record_batch([pa.array(keys[begin:end]), pa.array(documents[begin:end])], schema=BAND_ENTRIES)


@compiled
def _band_keys(signatures: Signatures, start: int, rows: int, keys: Hashes) -> None:
    for document in range(len(signatures)):
        value = np.uint64(0)
        for column in range(start, start + rows):
            value = value * PRIME + np.uint64(signatures[document, column]) + np.uint64(1)
        keys[document] = mix(value)


Ordering = Callable[[Numbers], tuple[Hashes, Hashes]]
"""Function from ascending document numbers to hashes of their signatures and of their exact texts."""


def bucket_pairs(keys: Hashes, documents: Numbers, total: int, ordering: Ordering) -> Numbers:
    """Candidate pairs first < second, encoded as first x `total` + second; ascending, distinct.

    Args:
        keys: (entries,) band keys, in any order.
        documents: (entries,) document numbers of the keys.
        total: number of documents.
        ordering: called for the documents in large buckets only.
    """
    order = np.argsort(keys)
    keys, documents = keys[order], documents[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, np.int64)
    sizes = np.diff(np.append(starts, len(keys)))
    small = (sizes > 1) & (sizes <= NEIGHBORS + 1)
    pairs = np.empty(int((sizes[small] * (sizes[small] - 1) // 2).sum()), dtype=np.int64)
    _small_bucket_pairs(documents, starts[small], sizes[small], total, pairs)
    candidates = [pairs]
    large = sizes > NEIGHBORS + 1
    for start, size in zip(starts[large].tolist(), sizes[large].tolist(), strict=True):
        candidates.append(_large_bucket_pairs(np.sort(documents[start : start + size]), total, ordering))
    return np.unique(np.concatenate(candidates))


def _large_bucket_pairs(members: Numbers, total: int, ordering: Ordering) -> Numbers:
    signatures, exact = ordering(members)
    order = np.lexsort((exact, signatures))
    members, signatures = members[order], signatures[order]
    is_first = np.concatenate([[True], signatures[1:] != signatures[:-1]])
    firsts = members[is_first]
    first_of = firsts[np.cumsum(is_first) - 1]
    pairs = [_encoded(first_of[~is_first], members[~is_first], total)]
    for step in range(1, min(NEIGHBORS, len(firsts) - 1) + 1):
        pairs.append(_encoded(firsts[:-step], firsts[step:], total))
    return np.concatenate(pairs)


def _encoded(first: Numbers, second: Numbers, total: int) -> Numbers:
    encoded: Numbers = np.minimum(first, second) * total + np.maximum(first, second)
    return encoded


@compiled
def _small_bucket_pairs(documents: Numbers, starts: Numbers, sizes: Numbers, total: int, pairs: Numbers) -> None:
    used = 0
    for bucket in range(len(starts)):
        members = documents[starts[bucket] : starts[bucket] + sizes[bucket]]
        for i in range(len(members)):
            for j in range(i + 1, len(members)):
                pairs[used] = min(members[i], members[j]) * total + max(members[i], members[j])
                used += 1


@compiled
def hash_rows(signatures: npt.NDArray[np.uint32], hashes: Hashes) -> None:
    """Fill in a hash of each row."""
    for row in range(len(signatures)):
        value = np.uint64(0)
        for column in range(signatures.shape[1]):
            value = mix(value + np.uint64(signatures[row, column]) + np.uint64(1))
        hashes[row] = value
