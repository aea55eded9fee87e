"""Locality-sensitive hashing: documents that share a band of their signature are candidates (Indyk & Motwani 1998).

- `bucket_partitions`, `partition_of`: division of all band keys among partitions, by the keys' leading bits
- `bucket_pairs`: candidate pairs of the buckets in one partition, and the members of its large buckets
- `large_bucket_pairs`: candidate pairs of these

The exact hash is an additional band. The candidate pairs depend on the set of documents alone, not on their order or
partitioning: in a bucket of up to `NEIGHBORS` + 1 documents they are all pairs; in a larger one the documents are
sorted by signature and exact hash, those of equal signature are paired with the first of them, and these first
documents are paired with the next `NEIGHBORS` first documents.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stages.common.compiled import compiled
from stages.common.minhash import Members
from stages.common.minhash_config import Banding
from stages.common.word_hashes import Hashes, mix
from stages.dedup.part_files import Numbers

NEIGHBORS = 64
"""Pairs per document of a large bucket. All pairs of a bucket of 100,000 boilerplate pages would be 5 billion."""
_MERGE_AT = 1 << 24
"""Pairs to collect before their repetitions are removed."""
ENTRIES = 1 << 21
"""Band keys that one bucket partition sorts: about 130 MB with their documents and the copies made by sorting, and
16 bytes per distinct candidate pair."""

MAX_PARTITIONS = 1 << 16
"""Beyond 6 billion documents, partitions grow instead: a driver lists them all."""
_ENCODABLE = 3_000_000_000
"""Number of documents whose pairs fit into 63 bits."""


class Pairs(NamedTuple):
    """Pairs of documents by number, first < second; ascending and distinct."""

    first: Numbers
    second: Numbers


def bucket_partitions(banding: Banding, documents: int) -> int:
    """Number of partitions for the band keys of this number of documents."""
    return min(MAX_PARTITIONS, max(1, -(-(banding.bands + 1) * documents // ENTRIES)))


def partition_of(keys: Hashes, partitions: int) -> npt.NDArray[np.uint32]:
    """Partition of each key, by its leading bits: a bucket is in one partition."""
    return ((keys >> np.uint64(32)) * np.uint64(partitions) >> np.uint64(32)).astype(np.uint32)


def bucket_pairs(keys: Hashes, documents: Numbers) -> tuple[Pairs, Members]:
    """Candidate pairs of small buckets, and the members of the large ones.

    Args:
        keys: (entries,) band keys, in any order.
        documents: (entries,) document numbers of the keys.
    """
    order = np.argsort(keys)
    keys, documents = keys[order], documents[order]
    starts = np.flatnonzero(_changes(keys))
    sizes = np.diff(np.append(starts, len(keys)))
    small = (sizes > 1) & (sizes <= NEIGHBORS + 1)
    first = np.empty(int((sizes[small] * (sizes[small] - 1) // 2).sum()), dtype=np.int64)
    second = np.empty(len(first), dtype=np.int64)
    _small_bucket_pairs(documents, starts[small], sizes[small], first, second)
    in_large = np.repeat(sizes > NEIGHBORS + 1, sizes)
    return distinct(first, second), Members(keys[in_large], documents[in_large])


def large_bucket_pairs(members: Members, signatures: Hashes, exact: Hashes) -> Pairs:
    """Candidate pairs of whole large buckets.

    Args:
        members: bucket and number of each document.
        signatures: (members,) uint64, hash of each document's signature.
        exact: (members,) uint64, hash of each document's exact text.
    """
    order = np.lexsort((members.documents, exact, signatures, members.keys))
    documents, keys, signatures = members.documents[order], members.keys[order], signatures[order]
    is_first = _changes(keys) | _changes(signatures)
    firsts, keys_of_firsts = documents[is_first], keys[is_first]
    pairs = [(firsts[np.cumsum(is_first) - 1][~is_first], documents[~is_first])]
    merged = 0
    for step in range(1, min(NEIGHBORS, len(firsts) - 1) + 1):
        same = keys_of_firsts[:-step] == keys_of_firsts[step:]
        pairs.append((firsts[:-step][same], firsts[step:][same]))
        if sum(len(one) for one, _ in pairs[1:]) > max(_MERGE_AT, merged):  # bands have most pairs in common
            pairs = [_ordered(pairs)]
            merged = len(pairs[0][0])
    return _ordered(pairs)


def _ordered(pairs: Sequence[tuple[Numbers, Numbers]]) -> Pairs:
    """Distinct pairs, the smaller number first."""
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return distinct(np.minimum(one, other), np.maximum(one, other))


def _changes(values: Hashes) -> npt.NDArray[np.bool_]:
    """Mask of the values that differ from the one before, the first included."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def distinct(first: Numbers, second: Numbers) -> Pairs:
    """Distinct pairs, ascending."""
    base = int(second.max(initial=0)) + 1
    if base <= _ENCODABLE:
        return Pairs(*np.divmod(np.unique(first * base + second), base))
    numbers, ranks = np.unique(np.concatenate([first, second]), return_inverse=True)
    encoded = np.unique(ranks[: len(first)] * len(numbers) + ranks[len(first) :])
    left, right = np.divmod(encoded, len(numbers))
    return Pairs(numbers[left], numbers[right])


@compiled
def _small_bucket_pairs(documents: Numbers, starts: Numbers, sizes: Numbers, first: Numbers, second: Numbers) -> None:
    used = 0
    for bucket in range(len(starts)):
        members = documents[starts[bucket] : starts[bucket] + sizes[bucket]]
        for i in range(len(members)):
            for j in range(i + 1, len(members)):
                first[used], second[used] = min(members[i], members[j]), max(members[i], members[j])
                used += 1


@compiled
def hash_rows(signatures: npt.NDArray[np.uint32], hashes: Hashes) -> None:
    """Fill in a hash of each row."""
    for row in range(len(signatures)):
        value = np.uint64(0)
        for column in range(signatures.shape[1]):
            value = mix(value + np.uint64(signatures[row, column]) + np.uint64(1))
        hashes[row] = value
