"""Small artifacts for tests."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from data_schemas.artifact_kinds import RAW_DOCUMENTS, ArtifactKind
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
