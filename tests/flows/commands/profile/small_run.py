"""A finished run whose clean and dedup stages were written by hand."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from data_schemas.artifact_kinds import CORPUS, RAW_DOCUMENTS
from data_schemas.manifest import RunRecord, StageOutcome
from data_schemas.tables import DOCUMENTS, FUNNEL, REJECTS, reject_row
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.runs import RunStore
from tests.stores import commit

RUN = "quiet-otter-3f9a"
BEGUN = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
GENRES = ("news", "books", "<script>alert(1)</script>")


def document(number: int) -> dict[str, Any]:
    """A document; every third has the same genre and language."""
    genre = GENRES[number % 3]
    text = f"</pre><script>alert({number})</script> Plain words of document {number}, \x1b[31mred\x1b[0m " * 9
    names = {"id": f"files/{number}", "path": "files", "source": f"source {number % 2}"}
    return {**names, "text": text, "genre": genre, "language": ("en", None, "de")[number % 3]}


def clean(store: str, documents: Iterable[Mapping[str, Any]]) -> Artifact:
    """An artifact of clean: the documents in two files."""
    rows = list(documents)
    out = ArtifactStore(store).writer("clean", "c" * 64, RUN, RAW_DOCUMENTS)
    for part in range(2):
        out.write_table(f"documents/{part}.parquet", pa.Table.from_pylist(rows[part::2], DOCUMENTS))
        out.write_table(f"rejects/{part}.parquet", REJECTS.empty_table())
        out.write_table(f"funnel/{part}.parquet", FUNNEL.empty_table())
    return commit(ArtifactStore(store), out, "clean", "c" * 64, RAW_DOCUMENTS)


def dedup(store: str, source: Artifact, documents: Iterable[Mapping[str, Any]], removed: Iterable[str]) -> Artifact:
    """An artifact of dedup: every tenth document is held out."""
    rows, gone = list(documents), set(removed)
    kept = [row for row in rows if row["id"] not in gone]
    rejects = [reject_row(row, "near_duplicate", size=9) for row in rows if row["id"] in gone]
    out = ArtifactStore(store).writer("dedup", "d" * 64, RUN, CORPUS)
    out.write_table("train/0.parquet", pa.Table.from_pylist(kept[len(kept) // 10 :], DOCUMENTS))
    out.write_table("held_out/0.parquet", pa.Table.from_pylist(kept[: len(kept) // 10], DOCUMENTS))
    out.write_table("rejects/0.parquet", pa.Table.from_pylist(rejects, REJECTS))
    out.write_table("funnel/0.parquet", FUNNEL.empty_table())
    inputs = {"documents": source.ref}
    return commit(ArtifactStore(store), out, "dedup", "d" * 64, CORPUS, inputs=inputs)


def write_run(store: str, *artifacts: Artifact, **config: Any) -> RunRecord:
    """The record of the run that made them."""
    stages = {
        artifact.manifest.stage: StageOutcome(action="run", why="never run", artifact=artifact.ref, seconds=1)
        for artifact in artifacts
    }
    record = RunRecord(
        run_id=RUN, config_name="small", config={"name": "small", **config}, config_digest="0" * 64,
        status="finished", host="here", pid=1, process_started=0.0, started=BEGUN, ended=BEGUN, stages=stages,
    )  # fmt: skip
    RunStore(store).save(record)
    return record
