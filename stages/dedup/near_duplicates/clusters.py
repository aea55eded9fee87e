"""Clusters: the connected components of near duplicates, and the one document of each that stays.

All edges pass through one process, but none is kept: it holds 17 bytes per document (parent, similarity, a
mark) and the best document of each cluster so far, about 100 bytes per cluster. A billion documents take 17 GB.
"""

from collections.abc import Sequence

import numba
import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from data_schemas.errors import EnvironmentProblem
from stages.dedup.near_duplicates.minhash_config import SurvivorConfig
from stages.dedup.near_duplicates.signature_index import SignatureFile, fixed_lists
from stages.dedup.part_files import Numbers, column_of, open_table

SURVIVOR, EXACT, NEAR = "survivor", "exact_duplicate", "near_duplicate"
FATES = pa.schema([("fate", pa.string()), ("survivor", pa.string()), ("similarity", pa.float64())])
"""A row per document: what becomes of it, the id of the document that stays instead, the Jaccard similarity with the
nearest document of its cluster that it was compared with."""
BYTES_PER_DOCUMENT = 17
_MEMBERS_AT_ONCE = 1 << 18
"""Members of clusters that are collected before all but the best of each cluster are let go."""


class Components:
    """Union-find over document numbers (Tarjan & van Leeuwen 1984); the smallest number stands for its cluster."""

    def __init__(self, documents: int) -> None:
        needed, free = BYTES_PER_DOCUMENT * documents, psutil.virtual_memory().available
        if needed > free:
            raise EnvironmentProblem(
                f"the clusters of {documents:,} documents need {needed / 1e9:.1f} GB in one process, and "
                f"{free / 1e9:.1f} GB are free; use a machine with more memory or deduplicate in parts by dedup.against"
            )
        self.parent = np.arange(documents, dtype=np.int64)
        self.similarity = np.full(documents, np.nan)
        self.is_shared = np.zeros(documents, dtype=bool)
        """(documents,) whether its cluster has others; known when finished."""

    def join(self, edges: pa.RecordBatch) -> None:
        """Join the two documents of each edge."""
        one, other, similarity = (column_of(edges, name) for name in ("one", "other", "similarity"))
        _join(self.parent, self.similarity, one, other, similarity)

    def finish(self) -> None:
        """Let each document point to the smallest number of its cluster."""
        _finish(self.parent, self.is_shared)

    def members(self, file: SignatureFile) -> Numbers:
        """Rows of a file whose documents are in clusters of two or more."""
        return np.flatnonzero(self.is_shared[file.first : file.end])


def best_of_clusters(components: Components, files: Sequence[SignatureFile], rule: SurvivorConfig) -> pa.Table:
    """The document of each cluster that stays, in ascending order of `cluster`: its number, id and exact hash.

    Documents of an earlier corpus come before all new ones; then the rule decides, which looks at the documents alone.
    """
    best = _BEST.empty_table()
    waiting, count = [best], 0
    for file in files:
        rows = components.members(file)
        if len(rows):
            waiting.append(_candidates(components, file, rows, rule))
            count += len(rows)
        if count > max(_MEMBERS_AT_ONCE, len(best)):
            best = _first_of_each(pa.concat_tables(waiting), rule)
            waiting, count = [best], 0
    return _first_of_each(pa.concat_tables(waiting), rule)


_BEST = pa.schema(
    [
        ("cluster", pa.int64()),
        ("is_new", pa.bool_()),
        ("source_priority", pa.int64()),
        ("quality", pa.float64()),
        ("length", pa.int64()),
        ("id", pa.string()),
        ("document", pa.int64()),
        ("exact", pa.list_(pa.uint64(), 2)),
    ]
)
"""Criteria are such that the smaller is the better."""


def _candidates(components: Components, file: SignatureFile, rows: Numbers, rule: SurvivorConfig) -> pa.Table:
    table = open_table(file.part).take(pa.array(rows))
    priority = pc.index_in(table.column("source"), pa.array(rule.source_priority, pa.string()))
    columns = {
        "cluster": pa.array(components.parent[file.first + rows]),
        "is_new": pa.array(np.full(len(rows), not file.is_earlier)),
        "source_priority": pc.fill_null(priority, len(rule.source_priority)).cast(pa.int64()),
        "quality": pc.negate(pc.fill_null(table.column("quality"), -np.inf)),
        "length": pc.negate(table.column("bytes")),
        "id": table.column("id"),
        "document": pa.array(file.first + rows),
        "exact": table.column("exact"),
    }
    return pa.table(columns, schema=_BEST)


def _first_of_each(table: pa.Table, rule: SurvivorConfig) -> pa.Table:
    keys = ["cluster", "is_new", *rule.order, "id", "document"]
    ordered = table.take(pc.sort_indices(table, [(key, "ascending") for key in keys])).combine_chunks()
    clusters = column_of(ordered, "cluster")
    return ordered.filter(pa.array(np.diff(clusters, prepend=-1) != 0)).combine_chunks()


def fates_of(components: Components, file: SignatureFile, best: pa.Table) -> pa.Table:
    """`FATES` of one file's documents."""
    rows = components.members(file)
    place = np.searchsorted(column_of(best, "cluster"), components.parent[file.first + rows])
    stays = column_of(best, "document")[place] == file.first + rows
    exact = fixed_lists(open_table(file.part), "exact")[rows] == fixed_lists(best, "exact")[place]
    codes, survivors = np.zeros(file.documents, dtype=np.int8), np.full(file.documents, -1)
    dropped = rows[~stays]
    codes[dropped] = np.where(exact[~stays].all(axis=1), 1, 2)
    survivors[dropped] = place[~stays]
    similarity = np.where(codes > 0, components.similarity[file.first : file.end], np.nan)
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([SURVIVOR, EXACT, NEAR])).cast(pa.string()),
        best.column("id").take(pa.array(survivors, mask=survivors < 0)).combine_chunks(),
        pa.array(similarity, mask=np.isnan(similarity)),
    ]
    return pa.table(columns, schema=FATES)


@numba.njit(cache=True)
def _find(parent: Numbers, member: int) -> int:
    while parent[member] != member:
        parent[member] = parent[parent[member]]
        member = parent[member]
    return member


@numba.njit(cache=True, nogil=True)
def _join(
    parent: Numbers,
    nearest: npt.NDArray[np.float64],
    one: Numbers,
    other: Numbers,
    similarity: npt.NDArray[np.float64],
) -> None:
    for edge in range(len(one)):
        a, b = _find(parent, one[edge]), _find(parent, other[edge])
        parent[max(a, b)] = min(a, b)
        for document in (one[edge], other[edge]):
            if np.isnan(nearest[document]) or nearest[document] < similarity[edge]:
                nearest[document] = similarity[edge]


@numba.njit(cache=True, nogil=True)
def _finish(parent: Numbers, is_shared: npt.NDArray[np.bool_]) -> None:
    for member in range(len(parent)):
        parent[member] = parent[parent[member]]
        if parent[member] != member:
            is_shared[member] = is_shared[parent[member]] = True
