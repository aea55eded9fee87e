"""Exact and near duplicates of any number of documents, in partitioned phases that are each bounded and resumable.

1. signatures: each file's documents are signed; kept under the store's `signatures/`, for every later pass too
2. bands: the keys of each signature's bands, a record batch per band and slice of keys
3. buckets: each slice of a band is sorted; documents of equal keys are candidates
4. candidates: pairs found by several bands are merged and held against the signatures
5. shingles: the sets of shingles of documents in pairs that the signatures left open
6. verification: the true Jaccard similarity of those pairs
7. clusters: the connected components, and the fate of each document

Documents are numbered file by file, an earlier corpus's survivors after the new ones. Numbers depend on how documents
are divided among files, and nothing that is decided depends on numbers. Pairs are one 64-bit number, which limits a
run to `MOST_DOCUMENTS`; what the clusters hold in one process is said in `clusters.py`.
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

MOST_DOCUMENTS = 3_000_000_000
"""The square of it, which numbers the pairs, is less than 2^63."""
_SHINGLES = "shingles.arrow"


def find_fates(
    documents: Artifact,
    names: Sequence[str],
    near: MinHashConfig,
    survivor: SurvivorConfig,
    against: Sequence[str],
    context: StageContext,
) -> list[pa.Table]:
    """Find out which documents stay and which are duplicates of them.

    Args:
        documents: an artifact with `documents/`.
        names: its files, without the folder.
        near: when two are near duplicates.
        survivor: which of a cluster stays.
        against: folders of earlier dedup artifacts, whose survivors always win.
        context: of the stage.

    Returns:
        Per file `FATES`: a row per document with its fate (survivor, exact_duplicate or near_duplicate), the id of the
        document that stays instead, and its similarity with a document of the cluster.

    Raises:
        NotFoundError: where an earlier artifact is not there.
        ConfigError: where its signatures were made with other settings.
        InputDataError: where there are more than `MOST_DOCUMENTS`.
        EnvironmentProblem: where the clusters do not fit into memory.
    """
    maps = context.partitions
    with context.phase("signatures"):
        files = sign_documents(documents, names, near, maps)
        files += earlier_files(against, near, files[-1].end if files else 0)
    work = NearDuplicates(documents, near, tuple(files), tuple(names))
    if work.total > MOST_DOCUMENTS:
        raise InputDataError(
            f"{work.total:,} documents, earlier ones included, are more than dedup can number ({MOST_DOCUMENTS:,}); "
            "deduplicate them in parts, each against the artifacts of those before it (dedup.against)"
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
        [found] = maps.map("clusters", partial(write_fates, work, survivor), [Partition("all", edges)])
    return [open_table(part_of(found, f"fates/{name}.arrow")) for name in names]


def _open_pairs(result: PartitionResult) -> Numbers:
    return column_of(open_table(part_of(result, OPEN_FILE)), "pair")


def _shingle_files(work: NearDuplicates, checked: Sequence[PartitionResult], maps: PartitionMap) -> list[ShingleFile]:
    """Sets of shingles of the documents that open pairs need, from the text of the files that hold them."""
    needed = np.zeros(work.new_documents, dtype=bool)
    for result in checked:
        for side in np.divmod(_open_pairs(result), work.total):
            needed[side] = True
    files = [
        (name, file) for name, file in zip(work.names, work.files, strict=False) if needed[file.first : file.end].any()
    ]
    wanted = [
        Partition(name.removesuffix(".parquet"), (name, file.first, np.flatnonzero(needed[file.first : file.end])))
        for name, file in files
    ]
    results = maps.map("shingles", partial(write_shingles, work.documents, work.near), wanted)
    return [
        ShingleFile(part_of(result, _SHINGLES), file.first, file.end)
        for result, (_, file) in zip(results, files, strict=True)
    ]


def write_shingles(
    documents: Artifact, near: MinHashConfig, payload: tuple[str, int, Numbers], out: PartitionWriter
) -> None:
    """Write the sets of shingles of some documents of a file: its name, its first document's number, and the rows."""
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
    """Compare a range's open pairs by their sets."""
    pairs = _open_pairs(checked[number])
    found = check_shingles(pairs, work.total, work.reader, ShingleReader(shingles), work.near.similarity)
    out.write(EDGE_FILE, file_bytes(EDGES, found))


def write_fates(
    work: NearDuplicates, survivor: SurvivorConfig, edges: Sequence[PartFile], out: PartitionWriter
) -> None:
    """Join all edges to clusters and write `fates/NAME.arrow` for each file."""
    components = Components(work.total)
    for part in edges:
        for batch in open_table(part).to_batches():
            components.join(batch)
    components.finish()
    best = best_of_clusters(components, work.files, survivor)
    for name, file in zip(work.names, work.files, strict=False):
        fates = fates_of(components, file, best)
        out.write_table(f"fates/{name}.arrow", fates)
