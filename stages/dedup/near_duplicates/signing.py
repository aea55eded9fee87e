"""Signatures of files of documents, and the index of survivors for deduplication by later runs.

- `sign_documents`: a signature file per file of documents
- `write_index`: the signatures of the survivors
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_schemas.config import canonical_json
from infra.store.artifacts import Artifact
from infra.store.filesystem import Folder
from infra.workers.partitions import Partition, PartitionMap, PartitionResult, PartitionWriter
from stages.common.minhash import SIGNATURE_VERSION, sign
from stages.common.minhash_config import MinHashConfig
from stages.dedup.filter import FileFates, survives
from stages.dedup.near_duplicates.signature_index import INDEX_FOLDER, SignatureFile, signed_schema
from stages.dedup.part_files import open_table, part_of
from stages.stage import StageContext

_SIGNED = "signed.arrow"


def sign_documents(
    documents: Artifact, names: Sequence[str], near: MinHashConfig, maps: PartitionMap
) -> list[SignatureFile]:
    """Signature files of the documents, computed or reused from the store.

    They depend on the documents and the signature settings, not on thresholds, bands or the survivor rule, so they are
    stored beside the stages' folders, shared by all configs of the stage.
    """
    key_fields = {
        "documents": documents.manifest.digest,
        "permutations": near.permutations,
        "shingle_words": near.shingle_words,
        "version": SIGNATURE_VERSION,
        "unicode": unicodedata.unidata_version,
    }
    key = hashlib.sha256(canonical_json(key_fields).encode()).hexdigest()
    store = maps.folder.url.rstrip("/").rsplit("/", 2)[0]
    shared = replace(maps, folder=Folder(f"{store}/signatures/{key}"))
    parts = [Partition(name.removesuffix(".parquet"), name) for name in names]
    first, files = 0, []
    results = shared.map("signatures", partial(sign_file, documents, near), parts)
    for name, result in zip(names, results, strict=True):
        files.append(SignatureFile(part_of(result, _SIGNED), first, result.marker.counts["documents"], name))
        first = files[-1].end
    return files


def sign_file(documents: Artifact, near: MinHashConfig, name: str, out: PartitionWriter) -> None:
    """Sign one file of documents."""
    with documents.open(f"documents/{name}") as file:
        table = pq.read_table(file, columns=["id", "text", "source", "quality"])
    signed = sign(table.column("text"), near.permutations, near.shingle_words)
    columns = [
        table.column("id").combine_chunks(),
        table.column("source").combine_chunks(),
        table.column("quality").combine_chunks(),
        pc.binary_length(table.column("text")).combine_chunks().cast(pa.int64()),
        pa.array(signed.shingles),
        pa.FixedSizeListArray.from_arrays(pa.array(signed.exact.ravel()), 2),
        pa.FixedSizeListArray.from_arrays(pa.array(signed.signatures.ravel()), near.permutations),
    ]
    out.count("documents", len(table))
    out.write_table(_SIGNED, pa.table(columns, schema=signed_schema(near)))


def write_index(
    documents: Artifact, names: Sequence[str], near: MinHashConfig, fates: Sequence[FileFates], context: StageContext
) -> list[PartitionResult]:
    """Write `index/NAME.arrow`, with which a later run can deduplicate against the survivors without their text.

    Args:
        documents: as in `find_fates`.
        names: its files.
        near: signature settings.
        fates: fates of each file's documents; the survivors are written to the index.
        context: context of the stage.

    Returns:
        Results to adopt into the artifact.
    """
    files = sign_documents(documents, names, near, context.partitions)
    parts = [
        Partition(name.removesuffix(".parquet"), (file, file_fates))
        for name, file, file_fates in zip(names, files, fates, strict=True)
    ]
    return context.partitions.map("index", write_index_file, parts)


def write_index_file(payload: tuple[SignatureFile, FileFates], out: PartitionWriter) -> None:
    """Write the signatures of one file's survivors."""
    file, fates = payload
    survivors = open_table(file.part).filter(pa.array(survives(fates.read())))
    out.write_table(f"{INDEX_FOLDER}/{file.name.removesuffix('.parquet')}.arrow", survivors)
