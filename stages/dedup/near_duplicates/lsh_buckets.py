"""Locality-sensitive hashing: documents that share a band of their signature are candidates (Indyk & Motwani 1998).

- `BandLayout`: how band keys are divided into files' record batches and those into bucket partitions
- `band_batches`: the band keys of some documents, a record batch per band and slice of keys
- `bucket_pairs`: candidates of the buckets in one slice of one band

The exact hash is one band more. Which pairs become candidates is a matter of the set of documents alone, not of their
order or partitioning: in a bucket of up to `NEIGHBOURS` + 1 documents all pairs do; in a larger one documents are
put in the order of their signatures and exact hashes, those of equal signature are joined to the first of them, and
the first ones are paired with the next `NEIGHBOURS` first ones.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.common.word_hashes import PRIME, Hashes, mix
from stages.dedup.near_duplicates.minhash import Signatures
from stages.dedup.near_duplicates.minhash_config import Banding
from stages.dedup.part_files import Numbers

NEIGHBOURS = 64
"""Partners per member of a large bucket. All pairs of a bucket of 100,000 boilerplate pages would be 5 billion."""
ENTRIES = 1 << 20
"""Band keys that one bucket partition sorts: with their documents and the sorting's copies about 60 MB, and 8 bytes for
each candidate, of which there are at most `NEIGHBOURS` per key."""
BAND_ENTRIES = pa.schema([("key", pa.uint64()), ("document", pa.int64())])


@dataclass(frozen=True)
class BandLayout:
    """The division of all band keys. Slices are by the keys' leading bits, so a bucket lies in one slice."""

    banding: Banding
    slice_bits: int
    bands_per_partition: int

    @classmethod
    def of(cls, banding: Banding, documents: int) -> "BandLayout":
        """For so many documents."""
        bits = max(0, (documents - 1) // ENTRIES).bit_length()
        return cls(banding, bits, max(1, ENTRIES // max(1, documents)))

    @property
    def slices(self) -> int:
        """Record batches per band."""
        return 1 << self.slice_bits

    @property
    def all_bands(self) -> int:
        """The signature's bands and the exact hash."""
        return self.banding.bands + 1

    def partitions(self) -> list[list[int]]:
        """Numbers of the record batches that each bucket partition reads from every file."""
        if self.slices > 1:
            return [[number] for number in range(self.all_bands * self.slices)]
        starts = range(0, self.all_bands, self.bands_per_partition)
        return [list(range(start, min(start + self.bands_per_partition, self.all_bands))) for start in starts]


def band_batches(
    signatures: Signatures, exact: Hashes, shingles: Numbers, documents: Numbers, layout: BandLayout
) -> Iterator[pa.RecordBatch]:
    """A record batch of keys and documents for each band and slice, in that order.

    Args:
        signatures: (documents, permutations).
        exact: (documents, 2).
        shingles: (documents,); documents without any have no key but the exact hash's.
        documents: (documents,) their numbers.
        layout: of the bands.
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


@numba.njit(cache=True, nogil=True)
def _band_keys(signatures: Signatures, start: int, rows: int, keys: Hashes) -> None:
    for document in range(len(signatures)):
        value = np.uint64(0)
        for place in range(start, start + rows):
            value = value * PRIME + np.uint64(signatures[document, place]) + np.uint64(1)
        keys[document] = mix(value)


Ordering = Callable[[Numbers], tuple[Hashes, Hashes]]
"""Of documents' ascending numbers: a hash of each one's signature, and of its exact text."""


def bucket_pairs(keys: Hashes, documents: Numbers, total: int, ordering: Ordering) -> Numbers:
    """Candidates: one x `total` + other for pairs of one < other; ascending, distinct.

    Args:
        keys: (entries,) band keys, in any order.
        documents: (entries,) whose they are.
        total: how many documents there are.
        ordering: asked for the documents in large buckets only.
    """
    order = np.argsort(keys)
    keys, documents = keys[order], documents[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, np.int64)
    sizes = np.diff(np.append(starts, len(keys)))
    small = (sizes > 1) & (sizes <= NEIGHBOURS + 1)
    pairs = np.empty(int((sizes[small] * (sizes[small] - 1) // 2).sum()), dtype=np.int64)
    _all_pairs(documents, starts[small], sizes[small], total, pairs)
    found = [pairs]
    large = sizes > NEIGHBOURS + 1
    for start, size in zip(starts[large].tolist(), sizes[large].tolist(), strict=True):
        found.append(_large_bucket(np.sort(documents[start : start + size]), total, ordering))
    return np.unique(np.concatenate(found))


def _large_bucket(members: Numbers, total: int, ordering: Ordering) -> Numbers:
    signatures, exact = ordering(members)
    order = np.lexsort((exact, signatures))
    members, signatures = members[order], signatures[order]
    is_first = np.concatenate([[True], signatures[1:] != signatures[:-1]])
    firsts = members[is_first]
    joined = firsts[np.cumsum(is_first) - 1]
    found = [_packed(joined[~is_first], members[~is_first], total)]
    for step in range(1, min(NEIGHBOURS, len(firsts) - 1) + 1):
        found.append(_packed(firsts[:-step], firsts[step:], total))
    return np.concatenate(found)


def _packed(one: Numbers, other: Numbers, total: int) -> Numbers:
    packed: Numbers = np.minimum(one, other) * total + np.maximum(one, other)
    return packed


@numba.njit(cache=True, nogil=True)
def _all_pairs(documents: Numbers, starts: Numbers, sizes: Numbers, total: int, pairs: Numbers) -> None:
    used = 0
    for bucket in range(len(starts)):
        members = documents[starts[bucket] : starts[bucket] + sizes[bucket]]
        for one in range(len(members)):
            for other in range(one + 1, len(members)):
                pairs[used] = min(members[one], members[other]) * total + max(members[one], members[other])
                used += 1


@numba.njit(cache=True, nogil=True)
def hash_rows(signatures: npt.NDArray[np.uint32], found: Hashes) -> None:
    """A hash of each row."""
    for row in range(len(signatures)):
        value = np.uint64(0)
        for place in range(signatures.shape[1]):
            value = mix(value + np.uint64(signatures[row, place]) + np.uint64(1))
        found[row] = value
