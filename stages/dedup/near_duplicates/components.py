"""Connected components of near duplicates, over the documents that are in pairs only.

- `find_components`: the cluster of each document in a pair, by the smallest number in it
- `join_all`, `joined`: union-find in memory, for up to `DOCUMENTS_AT_ONCE` documents in pairs
- `large_star`, `small_star`: one step each over the pairs of a block, for any number of documents

Alternating large-star and small-star operations (Kiveris et al. 2014, "Connected Components in MapReduce and Beyond")
turn every component into a star around its smallest number. No operation increases the number of pairs, and each reads
and writes all of them once; a chain of n documents takes about log2 n rounds.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from infra.workers.exchange import Exchange, Incoming
from infra.workers.partitions import Partition, PartitionMap, PartitionResult, PartitionWriter
from stages.common.compiled import compiled
from stages.dedup.near_duplicates.candidates import NearDuplicates
from stages.dedup.near_duplicates.lsh_buckets import Pairs, distinct
from stages.dedup.part_files import Numbers, numbers_of

DOCUMENTS_AT_ONCE = 1 << 24
"""Documents in pairs that one process joins in memory: about 1 GB with the copies made by sorting."""
EDGES_AT_ONCE = 1 << 22
"""Pairs to collect before they are joined."""
_LINKS = "links"


def find_components(work: NearDuplicates, edges: Incoming, count: int, maps: PartitionMap) -> Incoming:
    """Links from each document in a pair to smaller documents of its component, by its block.

    Args:
        work: inputs and settings.
        edges: `document` and `other` of each pair, in both directions, by the block of `document`.
        count: number of pairs.
        maps: runs the phases.

    Returns:
        Rows (document, other): the smaller of `document` and its smallest `other` is the document that represents the
        component.
    """
    links = link_exchange(work)
    blocks = [Partition(f"{number:06d}", number) for number in range(len(work.blocks))]
    documents = min(2 * count, work.total)
    if documents > DOCUMENTS_AT_ONCE:
        counted = maps.map("paired", partial(count_documents, edges), blocks)
        documents = sum(result.marker.counts["documents"] for result in counted)
    if documents <= DOCUMENTS_AT_ONCE:
        results = maps.map("components", partial(join_all, work), [Partition("all", edges)])
        return links.collect(maps, "links", results, _LINKS)
    round_number, is_changed = 0, True
    while is_changed:
        name = f"star_{round_number:03d}"
        large = maps.map(f"{name}_large", partial(large_star, work, edges), blocks)
        incoming = links.collect(maps, f"{name}_large_links", large, _LINKS)
        small = maps.map(f"{name}_small", partial(small_star, work, incoming), blocks)
        edges = links.collect(maps, f"{name}_small_links", small, _LINKS)
        is_changed = any(result.marker.counts["changed"] for result in (*large, *small))
        round_number += 1
    return edges


def link_exchange(work: NearDuplicates) -> Exchange:
    """Links between documents of a component, by the block of `document`."""
    return Exchange(pa.schema([("document", work.number), ("other", work.number)]), len(work.blocks))


def count_documents(edges: Incoming, block: int, out: PartitionWriter) -> None:
    """Count a block's documents in pairs."""
    numbers = [np.unique(numbers_of(table, "document")) for table in edges.tables(block)]
    out.count("documents", len(np.unique(np.concatenate([np.empty(0, np.int64), *numbers]))))


def join_all(work: NearDuplicates, edges: Incoming, out: PartitionWriter) -> None:
    """Link each document in a pair to the smallest of its component, in memory."""
    links = Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
    pending = [links]
    for table in edges.all():
        document, other = numbers_of(table, "document"), numbers_of(table, "other")
        pending.append(Pairs(document[document < other], other[document < other]))
        if sum(len(piece.first) for piece in pending[1:]) > EDGES_AT_ONCE:
            links = _joined(pending)
            pending = [links]
    links = _joined(pending)
    table = work.table(document=links.first, other=links.second)
    link_exchange(work).write(out, _LINKS, table, work.block_of(links.first))


def _joined(pieces: Sequence[Pairs]) -> Pairs:
    return Pairs(*joined(*(np.concatenate(side) for side in zip(*pieces, strict=True))))


def joined(first: Numbers, second: Numbers) -> tuple[Numbers, Numbers]:
    """Documents in pairs, ascending, and the smallest document of each one's component."""
    documents, ranks = np.unique(np.concatenate([first, second]), return_inverse=True)
    parent = np.arange(len(documents))
    _join(parent, ranks[: len(first)], ranks[len(first) :])
    return documents, documents[parent]


@compiled
def _find(parent: Numbers, member: int) -> int:
    while parent[member] != member:
        parent[member] = parent[parent[member]]
        member = parent[member]
    return member


@compiled
def _join(parent: Numbers, first: Numbers, second: Numbers) -> None:
    """Union-find (Tarjan & van Leeuwen 1984); the smallest number represents its component."""
    for edge in range(len(first)):
        a, b = _find(parent, first[edge]), _find(parent, second[edge])
        parent[max(a, b)] = min(a, b)
    for member in range(len(parent)):
        parent[member] = parent[parent[member]]


def large_star(work: NearDuplicates, edges: Incoming, block: int, out: PartitionWriter) -> None:
    """Link the larger neighbors of each document to the smallest neighbor or itself, each at the larger document."""
    document, other, smallest = _neighbors(edges, block)
    is_larger = other > document
    out.count("changed", int((smallest[is_larger] != document[is_larger]).sum()))
    _write_links(work, distinct(smallest[is_larger], other[is_larger]), False, out)


def small_star(work: NearDuplicates, edges: Incoming, block: int, out: PartitionWriter) -> None:
    """Link each document and its smaller neighbors to the smallest of these, in both directions."""
    document, other, smallest = _neighbors(edges, block)
    is_moved = other != smallest
    out.count("changed", int(is_moved.sum()))
    first = np.concatenate([smallest, smallest[is_moved]])
    _write_links(work, distinct(first, np.concatenate([document, other[is_moved]])), True, out)


def _neighbors(edges: Incoming, block: int) -> tuple[Numbers, Numbers, Numbers]:
    """Documents, their neighbors, and the smallest number in the document's neighborhood, itself included."""
    table = edges.read(block)
    document, other = numbers_of(table, "document"), numbers_of(table, "other")
    order = np.argsort(document, kind="stable")
    document, other = document[order], other[order]
    starts = np.flatnonzero(np.diff(document, prepend=-1))
    smallest = np.minimum.reduceat(other, starts) if len(starts) else other
    counts = np.diff(np.append(starts, len(document)))
    return document, other, np.minimum(document, np.repeat(smallest, counts))


def _write_links(work: NearDuplicates, pairs: Pairs, both: bool, out: PartitionWriter) -> None:
    document, other = pairs.second, pairs.first
    if both:
        document, other = np.concatenate([document, pairs.first]), np.concatenate([other, pairs.second])
    table = work.table(document=document, other=other)
    link_exchange(work).write(out, _LINKS, table, work.block_of(document))


def count_edges(results: Sequence[PartitionResult]) -> int:
    """Number of pairs that some partitions wrote."""
    return sum(result.marker.counts["edges"] for result in results)
