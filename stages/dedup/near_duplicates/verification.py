"""Verification of candidates: by the share of equal signature values, then by their sets of shingles.

The documents of a pair are in any two files, so what a chunk of pairs needs is sent to it: each file is read once.

- `send_signatures`, `check_candidates`: decide pairs by exact hash or signature; the others are open
- `send_shingles`, `verify`: decide open pairs by the Jaccard similarity of their sets of shingle hashes
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from infra.workers.exchange import Exchange, Incoming
from infra.workers.partitions import PartitionWriter
from stages.common.compiled import compiled
from stages.common.minhash import Signatures, shingle_sets
from stages.common.minhash_config import MinHashConfig
from stages.dedup.near_duplicates.candidates import Chunks, NearDuplicates, write_chunks
from stages.dedup.near_duplicates.lsh_buckets import Pairs
from stages.dedup.near_duplicates.signature_index import SignedRows, fixed_lists
from stages.dedup.part_files import Numbers, column_of, numbers_of

DEVIATIONS = 4
"""A pair is discarded if the signature's estimate is this many standard deviations below the threshold: 3 in 100,000
near duplicates are lost."""
SHINGLES_AT_ONCE = 1 << 24
"""Shingles in the sets that one partition compares: 64 MB of uint32."""
EDGES, ROWS = "edges", "rows"
Similarities = npt.NDArray[np.float64]


class Decided(NamedTuple):
    """Candidates decided by their signatures, and those left open."""

    is_near: npt.NDArray[np.bool_]
    """(pairs,) near duplicates."""
    similarity: Similarities
    """(pairs,) similarity; NaN if it was not measured."""
    is_open: npt.NDArray[np.bool_]
    """(pairs,) pairs to compare by their sets of shingles."""


def edge_exchange(work: NearDuplicates) -> Exchange:
    """Near duplicates, once for each of the two documents, by its block; similarity NaN if it was not measured."""
    fields = [("document", work.number), ("other", work.number), ("similarity", pa.float64())]
    return Exchange(pa.schema(fields), len(work.blocks))


def row_exchange(work: NearDuplicates, chunks: Chunks) -> Exchange:
    """Signatures of the documents that a chunk of pairs needs."""
    fields = [
        ("document", work.number),
        ("shingles", pa.int64()),
        ("exact", pa.list_(pa.uint64(), 2)),
        ("signature", pa.list_(pa.uint32(), work.near.permutations)),
    ]
    return Exchange(pa.schema(fields), chunks.total)


def set_exchange(work: NearDuplicates, chunks: Chunks) -> Exchange:
    """Sets of shingle hashes of the documents that a chunk of pairs needs."""
    return Exchange(pa.schema([("document", work.number), ("shingles", pa.large_list(pa.uint32()))]), chunks.total)


def _write_edges(work: NearDuplicates, pairs: Pairs, similarity: Similarities, out: PartitionWriter) -> None:
    documents = np.concatenate([pairs.first, pairs.second])
    others = np.concatenate([pairs.second, pairs.first])
    table = work.table(document=documents, other=others, similarity=np.tile(similarity, 2))
    out.count("edges", len(similarity))
    edge_exchange(work).write(out, EDGES, table, work.block_of(documents))


def _requested(chunks: Chunks, requests: Incoming, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Requested documents of a block in ascending order, and the chunk of pairs that needs each."""
    requested = requests.read(block)
    documents, to = numbers_of(requested, "document"), chunks.destinations(requested)
    order = np.argsort(documents, kind="stable")
    return documents[order], to[order]


def send_signatures(work: NearDuplicates, chunks: Chunks, requests: Incoming, block: int, out: PartitionWriter) -> None:
    """Send the signatures of a block's documents to the chunks of pairs that need them."""
    documents, to = _requested(chunks, requests, block)
    exchange = row_exchange(work, chunks)
    rows, destinations = [exchange.schema.empty_table()], [np.empty(0, np.int64)]
    for file in work.blocks[block].files:
        begin, end = np.searchsorted(documents, [file.first, file.end])
        if begin < end:
            table = file.table("shingles", "exact", "signature").take(pa.array(documents[begin:end] - file.first))
            columns = [pa.array(documents[begin:end], work.number), *table.columns]
            rows.append(pa.table(columns, schema=exchange.schema))
            destinations.append(to[begin:end])
    exchange.write(out, ROWS, pa.concat_tables(rows), np.concatenate(destinations))


def check_candidates(work: NearDuplicates, chunks: Chunks, rows: Incoming, number: int, out: PartitionWriter) -> None:
    """Decide a chunk of candidates by signature where possible; request sets of shingles for the others."""
    pairs, table = chunks.read(number), rows.read(number).sort_by("document").combine_chunks()
    signed = SignedRows(
        numbers_of(table, "document"),
        fixed_lists(table, "signature"),
        fixed_lists(table, "exact"),
        column_of(table, "shingles"),
    )
    decided = check_signatures(pairs, signed, work.new_documents, work.near)
    near = Pairs(*(side[decided.is_near] for side in pairs))
    _write_edges(work, near, decided.similarity[decided.is_near], out)
    still_open = Pairs(*(side[decided.is_open] for side in pairs))
    sizes = sum(signed.shingles[np.searchsorted(signed.documents, side)] for side in still_open)
    group = np.cumsum(sizes) // SHINGLES_AT_ONCE
    write_chunks(work, still_open, np.unique(group, return_inverse=True)[1], number, out)


def check_signatures(pairs: Pairs, rows: SignedRows, new_documents: int, near: MinHashConfig) -> Decided:
    """Decide candidates by exact hash and signature as far as `near.verify` allows.

    Args:
        pairs: candidates.
        rows: signatures of all their documents.
        new_documents: documents with smaller numbers have texts; the others are compared by signature only.
        near: threshold and kind of check.
    """
    first, second = (np.searchsorted(rows.documents, side) for side in pairs)
    agreement = np.empty(len(first))
    _share_equal(rows.signatures, first, second, agreement)
    identical = (rows.exact[first] == rows.exact[second]).all(axis=1)
    is_open = np.zeros(len(first), dtype=bool)
    if near.verify == "none":
        return Decided(~is_open, np.where(identical, 1.0, np.nan), is_open)
    certain = identical | (agreement >= near.similarity)
    if near.verify == "jaccard":
        deviation = np.sqrt(near.similarity * (1 - near.similarity) / near.permutations)
        has_texts = (pairs.second < new_documents) & ~identical
        is_open = has_texts & (agreement >= near.similarity - DEVIATIONS * deviation)
        certain &= ~has_texts
    return Decided(certain, np.where(identical, 1.0, agreement), is_open)


@compiled
def _share_equal(signatures: Signatures, first: Numbers, second: Numbers, shares: Similarities) -> None:
    width = signatures.shape[1]
    for pair in range(len(first)):
        a, b = signatures[first[pair]], signatures[second[pair]]
        equal = 0
        for column in range(width):
            equal += a[column] == b[column]
        shares[pair] = equal / width


def send_shingles(work: NearDuplicates, chunks: Chunks, requests: Incoming, block: int, out: PartitionWriter) -> None:
    """Send the sets of shingles of a block's documents to the chunks of open pairs that need them."""
    documents, to = _requested(chunks, requests, block)
    exchange = set_exchange(work, chunks)
    sets, destinations = [exchange.schema.empty_table()], [np.empty(0, np.int64)]
    for file in work.blocks[block].files:
        begin, end = np.searchsorted(documents, [file.first, file.end])
        if begin < end:
            rows, row_of = np.unique(documents[begin:end] - file.first, return_inverse=True)
            with work.documents.open(f"documents/{file.name}") as source:
                texts = pq.read_table(source, columns=["text"]).column("text").take(pa.array(rows))
            lists = shingle_sets(texts, work.near.shingle_words).take(pa.array(row_of))
            sets.append(pa.table([pa.array(documents[begin:end], work.number), lists], schema=exchange.schema))
            destinations.append(to[begin:end])
    exchange.write(out, ROWS, pa.concat_tables(sets), np.concatenate(destinations))


def verify(work: NearDuplicates, chunks: Chunks, sets: Incoming, number: int, out: PartitionWriter) -> None:
    """Compare a chunk of open pairs by their sets of shingles."""
    pairs, table = chunks.read(number), sets.read(number).sort_by("document").combine_chunks()
    documents, lists = numbers_of(table, "document"), table.column("shingles")
    lists = lists.chunk(0) if lists.num_chunks else pa.array([], lists.type)
    first, second = (np.searchsorted(documents, side) for side in pairs)
    similarity = np.empty(len(first))
    values = np.asarray(lists.values.to_numpy())
    _jaccard(values, lists.offsets.to_numpy(), first, second, similarity)
    near = similarity >= work.near.similarity
    _write_edges(work, Pairs(pairs.first[near], pairs.second[near]), similarity[near], out)


@compiled
def _jaccard(values: Signatures, bounds: Numbers, first: Numbers, second: Numbers, similarities: Similarities) -> None:
    """|A and B| / |A or B| by merging the ascending sets."""
    for pair in range(len(first)):
        a, a_end = bounds[first[pair]], bounds[first[pair] + 1]
        b, b_end = bounds[second[pair]], bounds[second[pair] + 1]
        sum_of_sizes, common = (a_end - a) + (b_end - b), 0
        while a < a_end and b < b_end:
            x, y = values[a], values[b]
            common += x == y
            a += x <= y
            b += y <= x
        similarities[pair] = common / (sum_of_sizes - common)
