"""Survivors of the clusters, and the fate of each document, block by block.

- `send_candidates`: the best document of each cluster in a block, to the block of the cluster
- `choose_survivors`: the best of these, back to the blocks with members of the cluster
- `write_fates`: the fates of a block's documents, a file per file of documents

A cluster has up to one candidate per block, so no process holds a cluster, nor all documents.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.workers.exchange import Exchange, Incoming
from infra.workers.partitions import PartitionWriter
from stages.dedup.config import SurvivorConfig
from stages.dedup.near_duplicates.candidates import NearDuplicates
from stages.dedup.near_duplicates.signature_index import SignatureFile, fixed_lists
from stages.dedup.part_files import Numbers, column_of, numbers_of

SURVIVOR, EXACT, NEAR = "survivor", "exact_duplicate", "near_duplicate"
FATES = pa.schema([("fate", pa.string()), ("survivor", pa.string()), ("similarity", pa.float64())])
"""A row per document: its fate, the id of the document that is kept instead, and the highest Jaccard similarity with a
document of its cluster that it was compared with."""
MEMBERS, SURVIVORS = "members", "survivors"


def member_exchange(work: NearDuplicates) -> Exchange:
    """Candidates for the survivors of clusters, by the block of the cluster; smaller is better in all criteria."""
    fields = [
        ("cluster", pa.int64()),
        ("is_new", pa.bool_()),
        ("source_priority", pa.int64()),
        ("quality", pa.float64()),
        ("length", pa.int64()),
        ("id", pa.string()),
        ("document", work.number),
        ("exact", pa.list_(pa.uint64(), 2)),
        ("block", pa.uint32()),
    ]
    return Exchange(pa.schema(fields), len(work.blocks))


def survivor_exchange(work: NearDuplicates) -> Exchange:
    """Survivors of clusters, by the new blocks with members."""
    fields = [("cluster", pa.int64()), ("id", pa.string()), ("document", work.number)]
    return Exchange(pa.schema([*fields, ("exact", pa.list_(pa.uint64(), 2))]), work.new_blocks)


class Clustered(NamedTuple):
    """Documents of a block in clusters of two or more."""

    documents: Numbers
    """(documents,) ascending."""
    clusters: Numbers
    """(documents,) the number that represents the cluster."""

    def of_file(self, file: SignatureFile) -> slice:
        """Those of a file."""
        begin, end = np.searchsorted(self.documents, [file.first, file.end]).tolist()
        return slice(begin, end)


def clustered(links: Incoming, block: int) -> Clustered:
    """Clusters of a block's documents, from the links of `find_components`."""
    table = links.read(block)
    documents, starts, linked = _grouped(numbers_of(table, "document"), numbers_of(table, "other"))
    smallest = np.minimum.reduceat(linked, starts) if len(starts) else linked
    return Clustered(documents, np.minimum(documents, smallest))


def _grouped(documents: Numbers, values: npt.NDArray[np.generic]) -> tuple[Numbers, Numbers, npt.NDArray[np.generic]]:
    """Distinct documents, the offset of each one's first value, and the values in this order."""
    order = np.argsort(documents, kind="stable")
    distinct, starts = np.unique(documents[order], return_index=True)
    return distinct, starts, values[order]


def send_candidates(
    work: NearDuplicates, links: Incoming, rule: SurvivorConfig, block: int, out: PartitionWriter
) -> None:
    """Send the best document of each cluster in a block to the block of the cluster.

    Documents of an earlier corpus precede all new ones; then the rule decides, by properties of the documents alone.
    """
    exchange, members = member_exchange(work), clustered(links, block)
    tables = [exchange.schema.empty_table()]
    for file in work.blocks[block].files:
        rows = members.of_file(file)
        if rows.start < rows.stop:
            numbers, clusters = members.documents[rows], members.clusters[rows]
            tables.append(_first_of_each(_candidates(work, file, numbers, clusters, rule, block), rule))
    best = _first_of_each(pa.concat_tables(tables), rule)
    exchange.write(out, MEMBERS, best, work.block_of(column_of(best, "cluster")))


def _candidates(
    work: NearDuplicates, file: SignatureFile, numbers: Numbers, clusters: Numbers, rule: SurvivorConfig, block: int
) -> pa.Table:
    table = file.table("id", "source", "quality", "bytes", "exact").take(pa.array(numbers - file.first))
    priority = pc.index_in(table.column("source"), pa.array(rule.source_priority, pa.string()))
    columns = {
        "cluster": pa.array(clusters),
        "is_new": pa.array(np.full(len(numbers), not file.is_earlier)),
        "source_priority": pc.fill_null(priority, len(rule.source_priority)).cast(pa.int64()),
        "quality": pc.negate(pc.fill_null(table.column("quality"), -np.inf)),
        "length": pc.negate(table.column("bytes")),
        "id": table.column("id"),
        "document": pa.array(numbers, work.number),
        "exact": table.column("exact"),
        "block": pa.array(np.full(len(numbers), block, np.uint32)),
    }
    return pa.table(columns, schema=member_exchange(work).schema)


def _first_of_each(table: pa.Table, rule: SurvivorConfig) -> pa.Table:
    ordered = table.take(_ranking(table, rule)).combine_chunks()
    return ordered.filter(pa.array(_is_first(ordered))).combine_chunks()


def _ranking(table: pa.Table, rule: SurvivorConfig) -> pa.Array:
    keys = ["cluster", "is_new", *rule.order, "id", "document"]
    return pc.sort_indices(table, [(key, "ascending") for key in keys])


def _is_first(ordered: pa.Table) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = np.diff(column_of(ordered, "cluster"), prepend=-1) != 0
    return mask


def choose_survivors(
    work: NearDuplicates, members: Incoming, rule: SurvivorConfig, block: int, out: PartitionWriter
) -> None:
    """Choose the survivors of a block's clusters; send them to the new blocks with members."""
    exchange, table = survivor_exchange(work), members.read(block)
    ordered = table.take(_ranking(table, rule)).combine_chunks()
    is_first = _is_first(ordered)
    best = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    to = column_of(ordered, "block")
    is_new = to < work.new_blocks
    chosen = ordered.select(exchange.schema.names).take(pa.array(best[is_new]))
    exchange.write(out, SURVIVORS, chosen, to[is_new])


def write_fates(
    work: NearDuplicates, links: Incoming, edges: Incoming, survivors: Incoming, block: int, out: PartitionWriter
) -> None:
    """Write `fates/NAME.arrow` for each file of a block."""
    members = clustered(links, block)
    table = edges.read(block)
    _, starts, values = _grouped(numbers_of(table, "document"), column_of(table, "similarity"))
    nearest: npt.NDArray[np.float64] = np.fmax.reduceat(values, starts) if len(starts) else np.empty(0)
    best = survivors.read(block).sort_by("cluster").combine_chunks()
    for file in work.blocks[block].files:
        rows = members.of_file(file)
        fates = fates_of(file, Clustered(members.documents[rows], members.clusters[rows]), nearest[rows], best)
        out.write_table(f"fates/{file.name}.arrow", fates)


def fates_of(file: SignatureFile, members: Clustered, nearest: npt.NDArray[np.float64], best: pa.Table) -> pa.Table:
    """`FATES` of one file's documents.

    Args:
        file: the file.
        members: its documents in clusters.
        nearest: (members,) highest similarity with a document of the cluster; NaN if none was measured.
        best: survivors of these clusters, and perhaps of others, ascending by `cluster`.
    """
    rows = members.documents - file.first
    codes, survivors = np.zeros(file.documents, dtype=np.int8), np.full(file.documents, -1)
    similarity = np.full(file.documents, np.nan)
    if len(rows):
        best_row = np.searchsorted(column_of(best, "cluster"), members.clusters)
        is_dropped = numbers_of(best, "document")[best_row] != members.documents
        same = fixed_lists(file.table("exact"), "exact")[rows] == fixed_lists(best, "exact")[best_row]
        dropped = rows[is_dropped]
        codes[dropped] = np.where(same[is_dropped].all(axis=1), 1, 2)
        survivors[dropped] = best_row[is_dropped]
        similarity[dropped] = nearest[is_dropped]
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([SURVIVOR, EXACT, NEAR])).cast(pa.string()),
        best.column("id").take(pa.array(survivors, mask=survivors < 0)).combine_chunks(),
        pa.array(similarity, mask=np.isnan(similarity)),
    ]
    return pa.table(columns, schema=FATES)
