"""Locality-sensitive hashing: documents that share a band of their signature are candidates (Indyk & Motwani 1998).

A pair of Jaccard similarity s becomes a candidate with probability 1 - (1 - s^rows)^bands.
"""

import numpy as np
import numpy.typing as npt

Signatures = npt.NDArray[np.uint32]
Pairs = npt.NDArray[np.int64]

NEIGHBOURS = 128
"""Partners per member of a large bucket. All pairs of a bucket of 100,000 boilerplate pages would be 5 billion."""
PAIRS_AT_ONCE = 50_000
"""Both signatures of a pair are 1 kB; this bounds what verification copies."""


def candidate_pairs(signatures: Signatures, bands: int, rows: int) -> Pairs:
    """Pairs that share a bucket: (pairs, 2) int64, the smaller position first, sorted, distinct.

    Every pair of a bucket must be a candidate: with a chain of neighbours only, which pairs come to verification, and
    with them the clusters, would depend on the documents' order. Documents of equal signature are one member, joined
    to the first of them; beyond `NEIGHBOURS` other members of a bucket, a member is paired with those that follow it
    in the order of the signatures. So the clusters are a matter of the signatures alone.

    Args:
        signatures: (documents, permutations).
        bands: bands of the signature.
        rows: values per band; bands x rows of the permutations are used.
    """
    if not len(signatures):
        return np.empty((0, 2), dtype=np.int64)
    _, first, member = np.unique(_as_keys(signatures), return_index=True, return_inverse=True)
    found = [np.stack([first[member], np.arange(len(signatures))], axis=1)]
    distinct = signatures[first]
    for band in range(bands):
        found.append(first[_bucket_pairs(_as_keys(distinct[:, band * rows : (band + 1) * rows]))])
    pairs = np.sort(np.concatenate(found), axis=1)
    numbers = np.unique(pairs[:, 0] * len(signatures) + pairs[:, 1])
    one, other = np.divmod(numbers, len(signatures))
    different = one != other
    chosen: Pairs = np.stack([one[different], other[different]], axis=1)
    return chosen


def _as_keys(rows: Signatures) -> npt.NDArray[np.void]:
    """Each row's bytes as one value that sorts and compares."""
    return np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()


def _bucket_pairs(keys: npt.NDArray[np.void]) -> Pairs:
    """Sort the members by their band: a bucket is a run of equal neighbours; pair those 1, 2, 3 ... steps apart."""
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    bucket = np.cumsum(np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]]))
    found = [np.empty((0, 2), dtype=np.int64)]
    starts = np.arange(len(keys))
    for step in range(1, NEIGHBOURS + 1):
        starts = starts[starts + step < len(keys)]
        starts = starts[bucket[starts] == bucket[starts + step]]
        if not len(starts):
            break
        found.append(np.stack([order[starts], order[starts + step]], axis=1))
    return np.concatenate(found)


def verified_pairs(signatures: Signatures, pairs: Pairs, similarity: float) -> Pairs:
    """Candidates whose whole signatures agree in a share of at least `similarity`: an estimate of their Jaccard."""
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        some = pairs[start : start + PAIRS_AT_ONCE]
        agreeing = (signatures[some[:, 0]] == signatures[some[:, 1]]).mean(axis=1)
        found.append(some[agreeing >= similarity])
    return np.concatenate(found)
