"""Small artifacts for tests."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from data_schemas.artifact_kinds import CORPUS, RAW_DOCUMENTS, ArtifactKind
from data_schemas.manifest import Manifest, Volume, content_digest
from data_schemas.tables import DOCUMENTS, FUNNEL, REJECTS
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact, ArtifactStore


def documents_table(texts: Mapping[str, str], **columns: Any) -> pa.Table:
    """A documents table with one row per id."""
    rows = [
        {"id": name, "text": text, "source": "tests", "path": name, "genre": "technical documentation", **columns}
        for name, text in texts.items()
    ]
    return pa.Table.from_pylist(rows, DOCUMENTS)


def no_rejects() -> pa.Table:
    """An empty rejects table."""
    return REJECTS.empty_table()


def commit(
    store: ArtifactStore, out: ArtifactWriter, stage: str, key: str, kind: ArtifactKind, **fields: Any
) -> Artifact:
    """Commit what `out` holds under a plain manifest, but for the given fields."""
    files = sorted(out.files.values(), key=lambda entry: entry.path)
    now = datetime.now(UTC)
    manifest = Manifest(
        stage=stage, stage_version=1, kind=kind.name, kind_version=kind.version, key=key, attempt=out.attempt,
        digest=content_digest(files), config={}, inputs={}, files=files, counts=out.counts, metrics=out.metrics,
        volume=out.volume, code={}, packages={}, device={}, started=now, ended=now, phases={}, peak_memory_bytes=0,
    )  # fmt: skip
    manifest = manifest.model_copy(update=fields)
    out.commit(manifest)
    return store.open(manifest.ref)


def documents_artifact(
    url: str, partitions: list[Mapping[str, str]], stage: str = "ingest", attempt: str = "test-run"
) -> Artifact:
    """A committed documents artifact with one file per partition."""
    store = ArtifactStore(url)
    out = store.writer(stage, "a" * 64, attempt, RAW_DOCUMENTS)
    for number, texts in enumerate(partitions):
        out.write_table(f"documents/{number:05d}.parquet", documents_table(texts))
        out.write_table(f"rejects/{number:05d}.parquet", no_rejects())
        out.write_table(f"funnel/{number:05d}.parquet", FUNNEL.empty_table())
    out.volume = Volume(documents=sum(map(len, partitions)))
    return commit(store, out, stage, "a" * 64, RAW_DOCUMENTS)


def document(name: str, text: str, **columns: Any) -> dict[str, Any]:
    """A row of the documents table."""
    return {"id": name, "text": text, "source": "tests", "path": name, "genre": "tests", **columns}


def corpus_artifact(
    train: Sequence[Mapping[str, Any]],
    held_out: Sequence[Mapping[str, Any]] = (),
    files: int = 1,
    funnel: Sequence[Sequence[Any]] = (),
    url: str = "",
) -> Artifact:
    """A committed corpus in a store of its own, by default in memory, its documents dealt out to some files.

    Args:
        train: rows of the documents table, such as those of `document`.
        held_out: the same.
        files: number of files of each split.
        funnel: rows of the funnel, values in the order of its columns.
        url: URL of the store.
    """
    store = ArtifactStore(url or f"memory://corpus-{uuid.uuid4().hex}")
    out = store.writer("dedup", "c" * 64, "test-run", CORPUS)
    for index in range(files):
        for split, rows in (("train", train), ("held_out", held_out)):
            table = pa.Table.from_pylist([dict(row) for row in rows[index::files]], DOCUMENTS)
            out.write_table(f"{split}/{index:05d}.parquet", table)
        out.write_table(f"rejects/{index:05d}.parquet", no_rejects())
        fates = [dict(zip(FUNNEL.names, row, strict=True)) for row in funnel[index::files]]
        out.write_table(f"funnel/{index:05d}.parquet", pa.Table.from_pylist(fates, FUNNEL))
    texts = [row["text"].encode() for row in (*train, *held_out)]
    out.volume = Volume(documents=len(texts), text_bytes=sum(map(len, texts)))
    return commit(store, out, "dedup", "c" * 64, CORPUS)
