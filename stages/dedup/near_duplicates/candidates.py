"""From signatures to candidate pairs: bands, buckets, and the distinct pairs of each block of documents.

- `NearDuplicates`: inputs, settings and exchanges common to all phases
- `write_bands`, `sort_buckets`, `order_members`, `pair_members`, `merge_pairs`, `merge_grouped_pairs`: the phases'
  partition functions
- `Chunks`: pairs of a block in pieces of bounded size, and the documents that they need
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.store.artifacts import Artifact
from infra.store.filesystem import Folder
from infra.workers.exchange import Exchange, Incoming, Pieces, write_pieces
from infra.workers.partitions import PartitionResult, PartitionWriter
from stages.common.minhash import Members, band_entries
from stages.common.minhash_config import MinHashConfig
from stages.dedup.near_duplicates.lsh_buckets import (
    Pairs,
    bucket_pairs,
    bucket_partitions,
    hash_rows,
    large_bucket_pairs,
    partition_of,
)
from stages.dedup.near_duplicates.signature_index import Block, fixed_lists
from stages.dedup.part_files import Numbers, PartFile, column_of, number_type, numbers_of, open_table

BLOCK_DOCUMENTS = 1 << 17
"""Maximum number of documents in a block of several files: 70 MB of signatures."""
MIN_BLOCK_DOCUMENTS = 1 << 12
BLOCKS = 8
"""Blocks of a small corpus, so that all workers have some."""
PAIRS_AT_ONCE = 1 << 17
"""Pairs whose signatures one partition compares: up to 140 MB."""
_MERGE_AT = 1 << 22
"""Pairs to collect before their repetitions are removed."""
BANDS, PAIRS, LARGE, CONTENT, REQUESTS, CHUNKS = "bands", "pairs", "large", "content.arrow", "requests", "chunks"


@dataclass(frozen=True)
class NearDuplicates:
    """Inputs and settings common to all phases; picklable."""

    documents: Artifact
    near: MinHashConfig
    blocks: tuple[Block, ...]
    """Blocks of new documents, then of earlier ones."""
    number: pa.DataType = field(init=False)
    """Type of document numbers in files."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "number", number_type(self.total))

    @cached_property
    def new_blocks(self) -> int:
        """Number of blocks whose documents' fates are to be determined."""
        return sum(not block.is_earlier for block in self.blocks)

    @property
    def new_documents(self) -> int:
        """Number of documents whose fate is to be determined; they have the smallest numbers."""
        return self.blocks[self.new_blocks - 1].end

    @property
    def total(self) -> int:
        """Number of documents, survivors of earlier artifacts included."""
        return self.blocks[-1].end

    @cached_property
    def _firsts(self) -> Numbers:
        return np.array([block.first for block in self.blocks], dtype=np.int64)

    def block_of(self, numbers: Numbers) -> Numbers:
        """Index of each document's block."""
        return np.searchsorted(self._firsts, numbers, side="right") - 1

    def table(self, **columns: npt.NDArray[np.generic]) -> pa.Table:
        """Table of columns of which `document`, `first`, `second` and `other` are document numbers."""
        names = ("document", "first", "second", "other")
        arrays = [pa.array(values, self.number if name in names else None) for name, values in columns.items()]
        return pa.table(arrays, list(columns))

    @cached_property
    def entries(self) -> Exchange:
        """Band keys, by bucket partition."""
        schema = pa.schema([("key", pa.uint64()), ("document", self.number)])
        return Exchange(schema, bucket_partitions(self.near.banding, self.total))

    @cached_property
    def large(self) -> Exchange:
        """Members of large buckets, by block."""
        return Exchange(self.entries.schema, len(self.blocks))

    @cached_property
    def ordered(self) -> Exchange:
        """Members of large buckets with the hashes that order them and the document's group, by bucket partition.

        A group is the smallest of the document's large buckets. Documents that share most buckets share it, so that the
        pairs of a group need few documents.
        """
        hashes = [pa.field(name, pa.uint64()) for name in ("signature", "exact", "group")]
        return Exchange(pa.schema([*self.entries.schema, *hashes]), self.entries.destinations)

    @cached_property
    def grouped_pairs(self) -> Exchange:
        """Candidate pairs of large buckets, by the smaller of the documents' groups."""
        return Exchange(self.pairs.schema.append(pa.field("group", pa.uint64())), self.entries.destinations)

    @cached_property
    def pairs(self) -> Exchange:
        """Candidate pairs, by the block of the first document."""
        return Exchange(pa.schema([("first", self.number), ("second", self.number)]), self.new_blocks)

    @cached_property
    def requests(self) -> Exchange:
        """Documents that a chunk of pairs needs, by the block of the document."""
        schema = pa.schema([("document", self.number), ("source", pa.uint32()), ("chunk", pa.uint32())])
        return Exchange(schema, len(self.blocks))


def write_bands(work: NearDuplicates, block: int, out: PartitionWriter) -> None:
    """Write the band keys of a block, and a hash of each document's signature and exact text."""
    tables = [file.table("shingles", "exact", "signature") for file in work.blocks[block].files]
    signatures = np.concatenate([fixed_lists(table, "signature") for table in tables])
    exact = np.concatenate([fixed_lists(table, "exact") for table in tables])
    shingles = np.concatenate([column_of(table, "shingles") for table in tables])
    documents = np.arange(work.blocks[block].first, work.blocks[block].end)
    hashes = np.empty(len(signatures), dtype=np.uint64)
    hash_rows(signatures, hashes)
    out.write_table(CONTENT, pa.table({"signature": hashes, "exact": exact[:, 0]}))
    entries = band_entries(signatures, exact, shingles, documents, work.near.banding)
    del tables, signatures
    table = work.table(key=entries.keys, document=entries.documents)
    work.entries.write(out, BANDS, table, partition_of(entries.keys, work.entries.destinations))


def sort_buckets(work: NearDuplicates, entries: Incoming, number: int, out: PartitionWriter) -> None:
    """Write the candidate pairs of small buckets, and the members of large ones."""
    table = entries.read(number)
    pairs, large = bucket_pairs(column_of(table, "key"), numbers_of(table, "document"))
    first, second = _of_new_documents(work, pairs)
    work.pairs.write(out, PAIRS, work.table(first=first, second=second), work.block_of(first))
    out.count("large", len(large.keys))
    work.large.write(out, LARGE, work.table(key=large.keys, document=large.documents), work.block_of(large.documents))


def order_members(
    work: NearDuplicates, contents: Sequence[PartFile], large: Incoming, block: int, out: PartitionWriter
) -> None:
    """Add the hashes that order the members of large buckets, and their groups."""
    members = large.read(block)
    keys, rows = column_of(members, "key"), numbers_of(members, "document") - work.blocks[block].first
    group = np.full(work.blocks[block].end - work.blocks[block].first, np.iinfo(np.uint64).max)
    np.minimum.at(group, rows, keys)
    content = open_table(contents[block])
    hashes = [content.column(name).take(pa.array(rows)) for name in ("signature", "exact")]
    table = pa.table([*members.columns, *hashes, group[rows]], schema=work.ordered.schema)
    work.ordered.write(out, LARGE, table, partition_of(keys, work.ordered.destinations))


def pair_members(work: NearDuplicates, ordered: Incoming, number: int, out: PartitionWriter) -> None:
    """Write the candidate pairs of large buckets."""
    table = ordered.read(number)
    members = Members(column_of(table, "key"), numbers_of(table, "document"))
    pairs = large_bucket_pairs(members, column_of(table, "signature"), column_of(table, "exact"))
    first, second = _of_new_documents(work, pairs)
    documents, rows = np.unique(members.documents, return_index=True)
    groups = column_of(table, "group")[rows]
    group = np.minimum(*(groups[np.searchsorted(documents, side)] for side in (first, second)))
    grouped = work.table(first=first, second=second, group=group)
    work.grouped_pairs.write(out, PAIRS, grouped, partition_of(group, work.grouped_pairs.destinations))


def _of_new_documents(work: NearDuplicates, pairs: Pairs) -> Pairs:
    is_new = pairs.first < work.new_documents
    return Pairs(pairs.first[is_new], pairs.second[is_new])


def merge_pairs(work: NearDuplicates, pairs: Incoming, block: int, out: PartitionWriter) -> None:
    """Write the distinct pairs of a block's documents in chunks, and request the signatures that they need."""
    merged = _merged(_grouped(table, 0) for table in pairs.tables(block))
    write_chunks(work, merged, np.arange(len(merged.first)) // PAIRS_AT_ONCE, block, out)


def merge_grouped_pairs(work: NearDuplicates, pairs: Incoming, number: int, out: PartitionWriter) -> None:
    """Write the distinct pairs of large buckets in chunks, group by group, and request what they need."""
    merged = _merged(_grouped(table, column_of(table, "group")) for table in pairs.tables(number))
    write_chunks(work, merged, np.arange(len(merged.first)) // PAIRS_AT_ONCE, work.new_blocks + number, out)


_Grouped = tuple[npt.NDArray[np.uint64], Numbers, Numbers]


def _grouped(table: pa.Table, group: Any) -> _Grouped:
    first = numbers_of(table, "first")
    return np.broadcast_to(np.asarray(group, dtype=np.uint64), len(first)), first, numbers_of(table, "second")


def _merged(pieces: Iterable[_Grouped]) -> Pairs:
    """Distinct pairs, in the order of their groups; repetitions are removed as they come."""
    pending: list[_Grouped] = [(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))]
    for piece in pieces:
        pending.append(piece)
        if sum(len(first) for _, first, _ in pending[1:]) > max(_MERGE_AT, len(pending[0][1])):
            pending = [_distinct_of_groups(pending)]
    return Pairs(*_distinct_of_groups(pending)[1:])


def _distinct_of_groups(pieces: Sequence[_Grouped]) -> _Grouped:
    group, first, second = (np.concatenate(column) for column in zip(*pieces, strict=True))
    order = np.lexsort((second, first, group))
    group, first, second = group[order], first[order], second[order]
    is_other = np.ones(len(first), dtype=bool)
    is_other[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return group[is_other], first[is_other], second[is_other]


def write_chunks(work: NearDuplicates, pairs: Pairs, chunk_of: Numbers, source: int, out: PartitionWriter) -> None:
    """Write pairs in chunks, and a request for each document that a chunk needs.

    Args:
        work: inputs and settings.
        pairs: pairs to compare.
        chunk_of: (pairs,) ascending chunk of each pair, from 0.
        source: index of the partition that writes them.
        out: receives `CHUNKS`, `REQUESTS` and the count `chunks`.
    """
    chunks = int(chunk_of[-1]) + 1 if len(chunk_of) else 0
    bounds = np.searchsorted(chunk_of, np.arange(chunks + 1)).tolist()
    tables, documents, chunk = [], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for number in range(chunks):
        piece = slice(bounds[number], bounds[number + 1])
        tables.append(work.table(first=pairs.first[piece], second=pairs.second[piece]))
        documents.append(np.unique(np.concatenate([pairs.first[piece], pairs.second[piece]])))
        chunk.append(np.full(len(documents[-1]), number))
    out.count("chunks", chunks)
    write_pieces(out, CHUNKS, tables)
    needed, to = np.concatenate(documents), np.concatenate(chunk).astype(np.uint32)
    table = work.table(document=needed, source=np.full(len(needed), source, np.uint32), chunk=to)
    work.requests.write(out, REQUESTS, table, work.block_of(needed))


@dataclass(frozen=True)
class Chunks:
    """Chunks of pairs that several partitions wrote, numbered over all of them; picklable, a path per partition."""

    folder: Folder
    paths: Sequence[str]
    offsets: Numbers
    """(partitions + 1,) number of the first chunk of each partition, and of all chunks."""
    schema: pa.Schema

    @classmethod
    def of(cls, results: Sequence[PartitionResult], folder: Folder, schema: pa.Schema) -> "Chunks":
        """Chunks that `write_chunks` wrote in these partitions, in this order."""
        offsets = np.cumsum([0, *(result.marker.counts["chunks"] for result in results)])
        return cls(folder, [result.location(CHUNKS) for result in results], offsets, schema)

    @property
    def total(self) -> int:
        """Number of chunks."""
        return int(self.offsets[-1])

    def read(self, number: int) -> Pairs:
        """Pairs of a chunk."""
        index = int(np.searchsorted(self.offsets, number, side="right")) - 1
        table = Pieces(self.folder, self.paths[index], self.schema).read(number - int(self.offsets[index]))
        return Pairs(numbers_of(table, "first"), numbers_of(table, "second"))

    def destinations(self, requests: pa.Table) -> Numbers:
        """Number of the chunk of each request."""
        destinations: Numbers = self.offsets[column_of(requests, "source")] + column_of(requests, "chunk")
        return destinations
