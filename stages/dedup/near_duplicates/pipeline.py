"""Exact and near duplicates of any number of documents, in partitioned phases with bounded memory that can be resumed.

1. signatures: each file's documents are signed; stored under the store's `signatures/` for later runs too
2. bands: keys of each signature's bands, a record batch per band and slice of keys
3. buckets: each slice of a band is sorted; documents with equal keys are candidates
4. candidates: pairs from several bands are merged and checked by their signatures
5. shingles: sets of shingles of the documents in pairs that the signatures do not decide
6. verification: exact Jaccard similarity of these pairs
7. clusters: connected components, and the fate of each document

Documents are numbered file by file, an earlier corpus's survivors after the new ones. Numbers depend on the division of
documents into files, but no result depends on the numbers. A pair is encoded as a 64-bit integer, which limits a run to
`MAX_DOCUMENTS`; the memory of the clusters in one process is described in `clusters.py`.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.errors import InputDataError
from infra.store.artifacts import Artifact
from infra.workers.partitions import Partition, PartitionMap, PartitionResult, PartitionWriter
from stages.dedup.near_duplicates.candidates import (
    EDGE_FILE,
    OPEN_FILE,
    NearDuplicates,
    band_groups,
    check_candidates,
    sort_buckets,
    write_bands,
)
from stages.dedup.near_duplicates.clusters import Components, best_of_clusters, fates_of
from stages.dedup.near_duplicates.minhash import shingle_sets
from stages.dedup.near_duplicates.minhash_config import MinHashConfig, SurvivorConfig
from stages.dedup.near_duplicates.signature_index import earlier_files
from stages.dedup.near_duplicates.signing import sign_documents
from stages.dedup.near_duplicates.verification import EDGES, SHINGLE_SETS, ShingleFile, ShingleReader, check_shingles
from stages.dedup.part_files import Numbers, PartFile, column_of, file_bytes, open_table, part_of
from stages.stage import StageContext

MAX_DOCUMENTS = 3_000_000_000
"""Its square, which bounds the encoded pairs, is less than 2^63."""
_SHINGLES = "shingles.arrow"


def find_fates(
    documents: Artifact,
    names: Sequence[str],
    near: MinHashConfig,
    survivor: SurvivorConfig,
    against: Sequence[str],
    context: StageContext,
) -> list[pa.Table]:
    """Determine the survivors and their duplicates.

    Args:
        documents: artifact with `documents/`.
        names: its files, without the folder.
        near: settings of near-duplicate detection.
        survivor: rule for the survivor of a cluster.
        against: folders of earlier dedup artifacts, whose survivors take precedence.
        context: context of the stage.

    Returns:
        `FATES` per file: a row per document with its fate (survivor, exact_duplicate or near_duplicate), the id of the
        document that is kept instead, and its similarity with a document of the cluster.

    Raises:
        NotFoundError: if an earlier artifact does not exist.
        ConfigError: if its signatures were computed with other settings.
        InputDataError: if there are more than `MAX_DOCUMENTS` documents.
        EnvironmentProblem: if the clusters do not fit into memory.
    """
    maps = context.partitions
    with context.phase("signatures"):
        files = sign_documents(documents, names, near, maps)
        files += earlier_files(against, near, files[-1].end if files else 0)
    work = NearDuplicates(documents, near, tuple(files), tuple(names))
    if work.total > MAX_DOCUMENTS:
        raise InputDataError(
            f"{work.total:,} documents, earlier ones included, exceed the limit of dedup ({MAX_DOCUMENTS:,}); "
            "deduplicate them in parts, each against the artifacts of the preceding parts (dedup.against)"
        )
    with context.phase("candidates"):
        bands = maps.map("bands", partial(write_bands, work), band_groups(work.files))
        buckets = [Partition(f"{number:06d}", batches) for number, batches in enumerate(work.layout.partitions())]
        pairs = maps.map("buckets", partial(sort_buckets, work, bands), buckets)
        by_range = [Partition(f"{number:05d}", number) for number in range(len(work.ranges))]
        checked = maps.map("candidates", partial(check_candidates, work, pairs), by_range)
    with context.phase("verification"):
        shingles = _shingle_files(work, checked, maps)
        verified = maps.map("verification", partial(verify, work, checked, shingles), by_range)
    with context.phase("clusters"):
        edges = [part_of(result, EDGE_FILE) for result in (*checked, *verified)]
        [clustered] = maps.map("clusters", partial(write_fates, work, survivor), [Partition("all", edges)])
    return [open_table(part_of(clustered, f"fates/{name}.arrow")) for name in names]


def _open_pairs(result: PartitionResult) -> Numbers:
    return column_of(open_table(part_of(result, OPEN_FILE)), "pair")


def _shingle_files(work: NearDuplicates, checked: Sequence[PartitionResult], maps: PartitionMap) -> list[ShingleFile]:
    """Sets of shingles of the documents in open pairs, from the files that contain them."""
    needed = np.zeros(work.new_documents, dtype=bool)
    for result in checked:
        for side in np.divmod(_open_pairs(result), work.total):
            needed[side] = True
    files = [
        (name, file) for name, file in zip(work.names, work.files, strict=False) if needed[file.first : file.end].any()
    ]
    partitions = [
        Partition(name.removesuffix(".parquet"), (name, file.first, np.flatnonzero(needed[file.first : file.end])))
        for name, file in files
    ]
    results = maps.map("shingles", partial(write_shingles, work.documents, work.near), partitions)
    return [
        ShingleFile(part_of(result, _SHINGLES), file.first, file.end)
        for result, (_, file) in zip(results, files, strict=True)
    ]


def write_shingles(
    documents: Artifact, near: MinHashConfig, payload: tuple[str, int, Numbers], out: PartitionWriter
) -> None:
    """Write the sets of shingles of some rows of a file; the payload is (name, number of its first document, rows)."""
    name, first, rows = payload
    with documents.open(f"documents/{name}") as file:
        texts = pq.read_table(file, columns=["text"]).column("text")
    columns = [pa.array(first + rows), shingle_sets(texts.take(pa.array(rows)), near.shingle_words)]
    out.write_table(_SHINGLES, pa.table(columns, schema=SHINGLE_SETS))


def verify(
    work: NearDuplicates,
    checked: Sequence[PartitionResult],
    shingles: Sequence[ShingleFile],
    number: int,
    out: PartitionWriter,
) -> None:
    """Compare a range's open pairs by their sets of shingles."""
    pairs = _open_pairs(checked[number])
    edges = check_shingles(pairs, work.total, work.reader, ShingleReader(shingles), work.near.similarity)
    out.write(EDGE_FILE, file_bytes(EDGES, edges))


def write_fates(
    work: NearDuplicates, survivor: SurvivorConfig, edges: Sequence[PartFile], out: PartitionWriter
) -> None:
    """Join all edges into clusters and write `fates/NAME.arrow` for each file."""
    components = Components(work.total)
    for part in edges:
        for batch in open_table(part).to_batches():
            components.join(batch)
    components.finish()
    best = best_of_clusters(components, work.files, survivor)
    for name, file in zip(work.names, work.files, strict=False):
        fates = fates_of(components, file, best)
        out.write_table(f"fates/{name}.arrow", fates)
