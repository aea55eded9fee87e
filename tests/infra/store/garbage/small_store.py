"""Stores with artifacts, runs and garbage of chosen ages, written in milliseconds."""

import hashlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from data_schemas.manifest import ArtifactRef, FileEntry, Manifest, RunRecord, StageOutcome, Volume, content_digest
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.filesystem import Folder
from infra.store.runs import RunStore
from tests.infra.store.run_records import run_record

NOW = datetime.now(UTC)
STAGES = ("ingest", "clean", "dedup", "compress")
DAY = 86_400


def key_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def add_artifact(
    store: str, stage: str, name: str, attempt: str, days: float, inputs: Sequence[ArtifactRef] = (),
    parts: Sequence[str] = (),
) -> ArtifactRef:  # fmt: skip
    """Commit an artifact of one file of its own and some in `parts/`; returns its reference."""
    folder, key, files = Folder(store).child(f"{stage}/{key_of(name)}"), key_of(name), []
    for path, part in [("own", None), *((text, f"parts/data/{text}") for text in parts)]:
        data = f"{name} {path}".encode()
        folder.write(part or f"{attempt}/{path}", data)
        files.append(FileEntry(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), part=part))
    ended = NOW - timedelta(days=days)
    manifest = Manifest(
        stage=stage, stage_version=1, kind="tests", kind_version=1, key=key, attempt=attempt,
        digest=content_digest(files), config={}, inputs={f"{i}": ref for i, ref in enumerate(inputs)}, files=files,
        counts={}, metrics={}, volume=Volume(), code={}, packages={}, device={}, started=ended, ended=ended, phases={},
        peak_memory_bytes=0,
    )  # fmt: skip
    folder.write(f"{attempt}/manifest.json", manifest.model_dump_json().encode())
    return manifest.ref


def add_run(
    store: str, run_id: str, days: float, refs: Sequence[ArtifactRef] = (), status: str = "finished", **fields: Any
) -> RunRecord:
    """Save the record of a run that began and ended some days ago and used artifacts."""
    time = NOW - timedelta(days=days)
    stages = {ref.stage: StageOutcome(action="run", why="", artifact=ref, seconds=0) for ref in refs}
    values = {"stages": stages, "started": time, "ended": time, "status": status, **fields}
    record = run_record(run_id).model_copy(update=values)
    RunStore(store).save(record)
    return record


def live(store: str, run_id: str, hold: str | None = None) -> RunRecord:
    """A run that this process owns, whose record says that it began long ago; holds `<stage>/<key>`."""
    runs = RunStore(store)
    record, claim = runs.start(run_record(run_id))
    if hold:
        claim.hold(*hold.split("/"))
    return record


def age(store: str, path: str, days: float) -> None:
    """Set the time of a file on a local disk or in memory."""
    folder, time = Folder(store), NOW - timedelta(days=days)
    if folder.is_local:
        os.utime(folder.local_path(path), (time.timestamp(), time.timestamp()))
    else:
        folder.filesystem.store[folder.full(path)].created = time


def paths(store: str) -> set[str]:
    """All files of a store but those of gc itself."""
    root = Folder(store)
    return {file.path for name in root.names() if name != "gc" for file in root.files(name)}


def damage(store: str) -> list[str]:
    """What `headrace verify` would report."""
    artifacts: list[Artifact] = [artifact for stage in STAGES for artifact in ArtifactStore(store).all(stage)]
    return [problem for artifact in artifacts for problem in artifact.damage()]
