"""Locality-sensitive hashing: documents that share a band of their signature are candidates (Indyk & Motwani 1998).

A pair of Jaccard similarity s becomes a candidate with probability 1 - (1 - s^rows)^bands.
"""

import numpy as np
import numpy.typing as npt

Signatures = npt.NDArray[np.uint32]
Pairs = npt.NDArray[np.int64]


def candidate_pairs(signatures: Signatures, bands: int, rows: int) -> Pairs:
    """Pairs that share a bucket, each bucket's members paired with its first one: (pairs, 2) int64, sorted, distinct.

    The chain through the first member joins the same clusters as all pairs of the bucket, in linear space.

    Args:
        signatures: (documents, permutations).
        bands: bands of the signature.
        rows: values per band; bands x rows of the permutations are used.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    for band in range(bands):
        found.append(_bucket_pairs(signatures[:, band * rows : (band + 1) * rows]))
    return np.unique(np.concatenate(found), axis=0)


def _bucket_pairs(band: Signatures) -> Pairs:
    """Sort the documents by their band's bytes: a bucket is a run of equal neighbours."""
    keys = np.ascontiguousarray(band).view(np.dtype((np.void, band.shape[1] * band.itemsize))).ravel()
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    same = np.concatenate([[False], sorted_keys[1:] == sorted_keys[:-1]]) if len(keys) else np.zeros(0, dtype=bool)
    run_start = np.maximum.accumulate(np.where(same, 0, np.arange(len(same))))
    return np.stack([order[run_start[same]], order[same]], axis=1)


def verified_pairs(signatures: Signatures, pairs: Pairs, similarity: float) -> Pairs:
    """Candidates whose whole signatures agree in a share of at least `similarity`: an estimate of their Jaccard."""
    agreeing = (signatures[pairs[:, 0]] == signatures[pairs[:, 1]]).mean(axis=1) if len(pairs) else np.empty(0)
    return pairs[agreeing >= similarity]
