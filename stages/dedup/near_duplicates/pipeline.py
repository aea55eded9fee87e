"""Exact and near duplicates of any number of documents, in partitioned phases with bounded memory that can be resumed.

1. signatures: each file's documents are signed; stored under the store's `signatures/` for later runs too
2. bands: keys of each signature's bands, sent to the bucket partition of the key
3. buckets: the entries of a partition are sorted; documents with equal keys are candidates
4. pairs: candidates from all bands are merged in the block of the first document; those of large buckets, of which a
   document has many, in groups of documents that share buckets
5. candidates: the signatures of both documents are sent to the pair, which they decide or leave open
6. verification: the sets of shingles of both documents are sent to an open pair; exact Jaccard similarity
7. clusters: connected components, the survivor of each, and the fate of each document

Documents are numbered file by file, an earlier corpus's survivors after the new ones. Numbers depend on the division of
documents into files, but no result depends on the numbers. Consecutive files form blocks. Rows move between blocks,
buckets and pairs through `infra/workers/exchange.py`: what is written, read and opened grows as the number of documents
and of candidate pairs, and no process holds a row per document of the corpus.
"""

from collections.abc import Callable, Sequence
from functools import partial

from infra.store.artifacts import Artifact
from infra.workers.exchange import Exchange, Incoming
from infra.workers.partitions import Partition, PartitionMap, PartitionResult
from stages.common.minhash_config import MinHashConfig
from stages.dedup.config import SurvivorConfig
from stages.dedup.filter import FileFates
from stages.dedup.near_duplicates import candidates, clusters, verification
from stages.dedup.near_duplicates.candidates import Chunks, NearDuplicates
from stages.dedup.near_duplicates.components import count_edges, find_components
from stages.dedup.near_duplicates.lsh_buckets import MAX_PARTITIONS
from stages.dedup.near_duplicates.signature_index import SignatureFile, blocks_of, earlier_files
from stages.dedup.near_duplicates.signing import sign_documents
from stages.dedup.part_files import part_of
from stages.stage import StageContext


def find_fates(
    documents: Artifact,
    names: Sequence[str],
    near: MinHashConfig,
    survivor: SurvivorConfig,
    against: Sequence[str],
    context: StageContext,
) -> list[FileFates]:
    """Determine the survivors and their duplicates.

    Args:
        documents: artifact with `documents/`.
        names: its files, without the folder.
        near: settings of near-duplicate detection.
        survivor: rule for the survivor of a cluster.
        against: folders of earlier dedup artifacts, whose survivors take precedence.
        context: context of the stage.

    Returns:
        Fates per file: a row per document with its fate (survivor, exact_duplicate or near_duplicate), the id of the
        document that is kept instead, and its similarity with a document of the cluster.

    Raises:
        NotFoundError: if an earlier artifact does not exist.
        ConfigError: if its signatures were computed with other settings.
    """
    with context.phase("signatures"):
        files = sign_documents(documents, names, near, context.partitions)
        files += earlier_files(against, near, files[-1].end if files else 0)
    return fates_of_signed(documents, files, near, survivor, context) if names else []


def fates_of_signed(
    documents: Artifact,
    files: Sequence[SignatureFile],
    near: MinHashConfig,
    survivor: SurvivorConfig,
    context: StageContext,
) -> list[FileFates]:
    """Fates per file of the documents whose signatures are in `files`; further arguments as in `find_fates`."""
    maps, total = context.partitions, files[-1].end
    size = min(max(total // candidates.BLOCKS, candidates.MIN_BLOCK_DOCUMENTS), candidates.BLOCK_DOCUMENTS)
    size = max(size, total // MAX_PARTITIONS)
    work = NearDuplicates(documents, near, tuple(blocks_of(files, size)))
    with context.phase("candidates"):
        merged = _candidates(work, maps)
        chunks = Chunks.of(merged, maps.folder, work.pairs.schema)
        rows = _sent(work, chunks, merged, "signature", verification.row_exchange, verification.send_signatures, maps)
        check = partial(verification.check_candidates, work, chunks, rows)
        checked = maps.map("candidates", check, numbered(chunks.total))
    with context.phase("verification"):
        still_open = Chunks.of(checked, maps.folder, work.pairs.schema)
        sets = _sent(work, still_open, checked, "shingle", verification.set_exchange, verification.send_shingles, maps)
        verify = partial(verification.verify, work, still_open, sets)
        verified = maps.map("verification", verify, numbered(still_open.total))
    with context.phase("clusters"):
        results = _fates(work, [*checked, *verified], survivor, maps)
    parts = {path: part_of(result, path) for result in results for path in (f.path for f in result.marker.files)}
    return [FileFates(parts[f"fates/{file.name}.arrow"]) for file in files if not file.is_earlier]


def numbered(count: int) -> list[Partition]:
    """Partitions whose payload is their number."""
    return [Partition(f"{number:06d}", number) for number in range(count)]


def _candidates(work: NearDuplicates, maps: PartitionMap) -> list[PartitionResult]:
    """Distinct candidate pairs of all blocks, in chunks."""
    blocks, buckets = numbered(len(work.blocks)), numbered(work.entries.destinations)
    bands = maps.map("bands", partial(candidates.write_bands, work), blocks)
    entries = work.entries.collect(maps, "band_entries", bands, candidates.BANDS)
    sorted_buckets = maps.map("buckets", partial(candidates.sort_buckets, work, entries), buckets)
    pairs = work.pairs.collect(maps, "bucket_pairs", sorted_buckets, candidates.PAIRS)
    merged = maps.map("pairs", partial(candidates.merge_pairs, work, pairs), numbered(work.new_blocks))
    if any(result.marker.counts["large"] for result in sorted_buckets):
        large = work.large.collect(maps, "large_members", sorted_buckets, candidates.LARGE)
        contents = [part_of(result, candidates.CONTENT) for result in bands]
        order = partial(candidates.order_members, work, contents, large)
        ordered = work.ordered.collect(maps, "ordered_members", maps.map("order", order, blocks), candidates.LARGE)
        paired = maps.map("large_buckets", partial(candidates.pair_members, work, ordered), buckets)
        grouped = work.grouped_pairs.collect(maps, "large_pairs", paired, candidates.PAIRS)
        merged += maps.map("grouped_pairs", partial(candidates.merge_grouped_pairs, work, grouped), buckets)
    return merged


def _sent(
    work: NearDuplicates,
    chunks: Chunks,
    writers: Sequence[PartitionResult],
    name: str,
    exchange_of: Callable[[NearDuplicates, Chunks], Exchange],
    send: Callable[..., None],
    maps: PartitionMap,
) -> Incoming:
    """Signatures or sets of shingles that the chunks of pairs need, as the writers of the chunks requested them."""
    exchange = exchange_of(work, chunks)
    if not chunks.total:
        return exchange.collect(maps, f"{name}_rows", [], verification.ROWS)
    requests = work.requests.collect(maps, f"{name}_requests", writers, candidates.REQUESTS)
    sent = maps.map(f"{name}s", partial(send, work, chunks, requests), numbered(len(work.blocks)))
    return exchange.collect(maps, f"{name}_rows", sent, verification.ROWS)


def _fates(
    work: NearDuplicates, decided: Sequence[PartitionResult], survivor: SurvivorConfig, maps: PartitionMap
) -> list[PartitionResult]:
    """Clusters of the near duplicates that were decided, and the fates of the new documents."""
    blocks, new_blocks = numbered(len(work.blocks)), numbered(work.new_blocks)
    edges = verification.edge_exchange(work).collect(maps, "edges", decided, verification.EDGES)
    links = find_components(work, edges, count_edges(decided), maps)
    members = maps.map("members", partial(clusters.send_candidates, work, links, survivor), blocks)
    sent = clusters.member_exchange(work).collect(maps, "cluster_members", members, clusters.MEMBERS)
    chosen = maps.map("survivors", partial(clusters.choose_survivors, work, sent, survivor), blocks)
    survivors = clusters.survivor_exchange(work).collect(maps, "cluster_survivors", chosen, clusters.SURVIVORS)
    return maps.map("fates", partial(clusters.write_fates, work, links, edges, survivors), new_blocks)
