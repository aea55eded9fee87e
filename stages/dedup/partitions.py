"""The partitioned steps of dedup: sign each partition, decide over all, filter each partition."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import xxhash

from data_schemas.tables import DOCUMENTS, REJECTS
from infra.artifacts import Artifact
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
    fate = np.array(fates.column("fate").to_pylist(), dtype=object)
    sizes = np.array([len(text.encode()) for text in table.column("text").to_pylist()], dtype=np.int64)
    out.count("documents_in", len(fate))
    out.count("bytes_in", int(sizes.sum()))
    for split in (TRAIN, HELD_OUT):
        chosen = fate == split
        out.count(f"{split}_documents", int(chosen.sum()))
        out.count(f"{split}_bytes", int(sizes[chosen].sum()))
        out.count("documents_out", int(chosen.sum()))
        out.count("bytes_out", int(sizes[chosen].sum()))
        out.write_table(f"{split}/{name}", table.filter(pa.array(chosen)).cast(DOCUMENTS))
    gone = (fate == EXACT) | (fate == NEAR)
    for reason in (EXACT, NEAR):
        out.count(f"dropped.{reason}", int((fate == reason).sum()))
    rejects = table.filter(pa.array(gone))
    out.write_table(
        f"rejects/{name}",
        pa.table(
            {
                "id": rejects.column("id"),
                "source": rejects.column("source"),
                "path": rejects.column("path"),
                "position": pa.array([-1] * len(rejects), pa.int64()),
                "reason": pa.array(fate[gone].tolist(), pa.string()),
                "bytes": pa.array(sizes[gone]),
            },
            schema=REJECTS,
        ),
    )
