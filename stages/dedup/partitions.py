"""The partitioned steps of dedup: sign each partition, decide over all, filter each partition."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import xxhash

from data_schemas.tables import DOCUMENTS, REJECTS, reject_row
from infra.artifacts import Artifact
from infra.funnel import Funnel
from infra.partitions import PartitionWriter
from stages.dedup.clusters import survivors
from stages.dedup.lsh_buckets import candidate_pairs, verified_pairs
from stages.dedup.minhash import exact_hash, signatures

if TYPE_CHECKING:
    from stages.dedup.stage import DedupConfig

TRAIN, HELD_OUT, EXACT, NEAR = "train", "held_out", "exact_duplicate", "near_duplicate"


def sign_partition(documents: Artifact, permutations: int, name: str, out: PartitionWriter) -> None:
    """Write `signatures.arrow`: id, bytes, exact hash and MinHash signature of each document of one file."""
    table = documents.read_table(f"documents/{name}")
    texts = table.column("text").to_pylist()
    signed = signatures(texts, permutations)
    out.count("signed", len(texts))
    columns = {
        "id": table.column("id").combine_chunks(),
        "bytes": pa.array([len(text.encode()) for text in texts], pa.int64()),
        "exact": pa.array([exact_hash(text) for text in texts], pa.binary(16)),
        "signature": pa.FixedSizeListArray.from_arrays(pa.array(signed.ravel()), permutations),
    }
    out.write_table("signatures.arrow", pa.table(columns))


def fates_table(signed: list[pa.Table], config: "DedupConfig") -> pa.Table:
    """Decide over all documents, in their order: one column `fate`."""
    table = pa.concat_tables(signed).combine_chunks()
    ids = table.column("id").to_pylist()
    flat = table.column("signature").combine_chunks().flatten().to_numpy()
    matrix = flat.reshape(len(ids), config.permutations)
    exact = table.column("exact").to_pylist()
    pairs = verified_pairs(matrix, candidate_pairs(matrix, config.bands, config.rows), config.similarity)
    keep, kept_ids = survivors(ids, table.column("bytes").to_numpy(), exact, pairs)
    exact_of = dict(zip(ids, exact, strict=True))
    fates = [
        _split(document, config) if kept else EXACT if exact_of[document] == exact_of[survivor] else NEAR
        for document, kept, survivor in zip(ids, keep, kept_ids, strict=True)
    ]
    return pa.table({"fate": pa.array(fates, pa.string())})


def _split(document: str, config: "DedupConfig") -> str:
    """Held out or not, by a hash of the id alone: the same under any partitioning and any other documents."""
    share = xxhash.xxh64_intdigest(document.encode(), seed=config.seed) / 2**64
    return HELD_OUT if share < config.held_out_share else TRAIN


def filter_partition(documents: Artifact, payload: tuple[str, pa.Table], out: PartitionWriter) -> None:
    """Write one file's documents to `train/`, `held_out/` and `rejects/` by their fates."""
    name, fates = payload
    table = documents.read_table(f"documents/{name}")
    rows = table.select(["id", "source", "path", "genre"]).to_pylist()
    sizes = [len(text.encode()) for text in table.column("text").to_pylist()]
    fate = np.array(fates.column("fate").to_pylist(), dtype=object)
    funnel, rejects = Funnel(), []
    for row, size, its_fate in zip(rows, sizes, fate, strict=True):
        if its_fate in (TRAIN, HELD_OUT):
            funnel.kept(row, size, size)
            out.count(f"{its_fate}_documents", 1)
            out.count(f"{its_fate}_bytes", size)
        else:
            funnel.dropped(row, its_fate, size)
            rejects.append(reject_row(row, its_fate, size=size))
    funnel.write(out, f"funnel/{name}")
    for split in (TRAIN, HELD_OUT):
        out.write_table(f"{split}/{name}", table.filter(pa.array(fate == split)).cast(DOCUMENTS))
    out.write_table(f"rejects/{name}", pa.Table.from_pylist(rejects, REJECTS))
