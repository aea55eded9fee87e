"""Clusters: the connected components of near duplicates, and the survivor of each.

All edges are processed in one process, but none is stored: it holds 17 bytes per document (parent, similarity, a flag)
and the best document of each cluster so far, about 100 bytes per cluster. A billion documents take 17 GB.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from data_schemas.errors import EnvironmentProblem
from stages.common.compiled import compiled
from stages.dedup.near_duplicates.minhash_config import SurvivorConfig
from stages.dedup.near_duplicates.signature_index import SignatureFile, fixed_lists
from stages.dedup.part_files import Numbers, column_of, open_table

SURVIVOR, EXACT, NEAR = "survivor", "exact_duplicate", "near_duplicate"
FATES = pa.schema([("fate", pa.string()), ("survivor", pa.string()), ("similarity", pa.float64())])
"""A row per document: its fate, the id of the document that is kept instead, and the highest Jaccard similarity with a
document of its cluster that it was compared with."""
BYTES_PER_DOCUMENT = 17
_MEMBERS_AT_ONCE = 1 << 18
"""Cluster members to collect before reducing them to the best of each cluster."""


class Components:
    """Union-find over document numbers (Tarjan & van Leeuwen 1984); the smallest number represents its cluster."""

    def __init__(self, documents: int) -> None:
        needed, free = BYTES_PER_DOCUMENT * documents, psutil.virtual_memory().available
        if needed > free:
            raise EnvironmentProblem(
                f"the clusters of {documents:,} documents need {needed / 1e9:.1f} GB in one process, but "
                f"{free / 1e9:.1f} GB are free; use a machine with more memory or deduplicate in parts by dedup.against"
            )
        self.parent = np.arange(documents, dtype=np.int64)
        self.similarity = np.full(documents, np.nan)
        self.is_shared = np.zeros(documents, dtype=bool)
        """Mask (documents,) of clusters of two or more; valid after `finish`."""

    def join(self, edges: pa.RecordBatch) -> None:
        """Join the two documents of each edge."""
        first, second, similarity = (column_of(edges, name) for name in ("one", "other", "similarity"))
        _join(self.parent, self.similarity, first, second, similarity)

    def finish(self) -> None:
        """Point each document to the smallest number of its cluster."""
        _finish(self.parent, self.is_shared)

    def members(self, file: SignatureFile) -> Numbers:
        """Rows of a file whose documents are in clusters of two or more."""
        return np.flatnonzero(self.is_shared[file.first : file.end])


def best_of_clusters(components: Components, files: Sequence[SignatureFile], rule: SurvivorConfig) -> pa.Table:
    """Survivor of each cluster, in ascending order of `cluster`: its number, id and exact hash.

    Documents of an earlier corpus precede all new ones; then the rule decides, by properties of the documents alone.
    """
    best = _BEST.empty_table()
    pending, count = [best], 0
    for file in files:
        rows = components.members(file)
        if len(rows):
            pending.append(_candidates(components, file, rows, rule))
            count += len(rows)
        if count > max(_MEMBERS_AT_ONCE, len(best)):
            best = _first_of_each(pa.concat_tables(pending), rule)
            pending, count = [best], 0
    return _first_of_each(pa.concat_tables(pending), rule)


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
"""Smaller is better in all criteria."""


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
    best_row = np.searchsorted(column_of(best, "cluster"), components.parent[file.first + rows])
    survives = column_of(best, "document")[best_row] == file.first + rows
    exact = fixed_lists(open_table(file.part), "exact")[rows] == fixed_lists(best, "exact")[best_row]
    codes, survivors = np.zeros(file.documents, dtype=np.int8), np.full(file.documents, -1)
    dropped = rows[~survives]
    codes[dropped] = np.where(exact[~survives].all(axis=1), 1, 2)
    survivors[dropped] = best_row[~survives]
    similarity = np.where(codes > 0, components.similarity[file.first : file.end], np.nan)
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([SURVIVOR, EXACT, NEAR])).cast(pa.string()),
        best.column("id").take(pa.array(survivors, mask=survivors < 0)).combine_chunks(),
        pa.array(similarity, mask=np.isnan(similarity)),
    ]
    return pa.table(columns, schema=FATES)


@compiled
def _find(parent: Numbers, member: int) -> int:
    while parent[member] != member:
        parent[member] = parent[parent[member]]
        member = parent[member]
    return member


@compiled
def _join(
    parent: Numbers,
    nearest: npt.NDArray[np.float64],
    first: Numbers,
    second: Numbers,
    similarity: npt.NDArray[np.float64],
) -> None:
    for edge in range(len(first)):
        a, b = _find(parent, first[edge]), _find(parent, second[edge])
        parent[max(a, b)] = min(a, b)
        for document in (first[edge], second[edge]):
            if np.isnan(nearest[document]) or nearest[document] < similarity[edge]:
                nearest[document] = similarity[edge]


@compiled
def _finish(parent: Numbers, is_shared: npt.NDArray[np.bool_]) -> None:
    for member in range(len(parent)):
        parent[member] = parent[parent[member]]
        if parent[member] != member:
            is_shared[member] = is_shared[parent[member]] = True
