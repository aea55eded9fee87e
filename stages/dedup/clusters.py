"""Clusters of duplicates and the one document of each that stays."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class DisjointSets:
    """Union-find with path halving (Tarjan & van Leeuwen 1984)."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, member: int) -> int:
        """Representative of a member's set."""
        parent = self._parent
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    def union(self, one: int, other: int) -> None:
        """Join two sets; the smaller representative stays."""
        first, second = sorted((self.find(one), self.find(other)))
        self._parent[second] = first


def survivors(
    ids: Sequence[str], lengths: npt.NDArray[np.int64], exact_hashes: Sequence[bytes], pairs: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Join exact and near duplicates to clusters and choose: the longest text, then the smallest id.

    The rule looks at the documents alone, so the choice does not depend on their order or partitioning.

    Args:
        ids: document ids, distinct.
        lengths: bytes of text.
        exact_hashes: equal for exact duplicates.
        pairs: (pairs, 2) positions of near duplicates.

    Returns:
        Which documents stay, and for each document the id of its cluster's survivor.
    """
    sets = DisjointSets(len(ids))
    first_with: dict[bytes, int] = {}
    for position, digest in enumerate(exact_hashes):
        sets.union(first_with.setdefault(digest, position), position)
    for one, other in pairs.tolist():
        sets.union(one, other)
    roots = [sets.find(position) for position in range(len(ids))]
    best: dict[int, int] = {}
    for position, root in enumerate(roots):
        chosen = best.setdefault(root, position)
        if (-lengths[position], ids[position]) < (-lengths[chosen], ids[chosen]):
            best[root] = position
    keep = np.zeros(len(ids), dtype=bool)
    keep[list(best.values())] = True
    return keep, [ids[best[root]] for root in roots]
