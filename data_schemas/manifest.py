"""The manifest: the one file that makes an artifact exist, and the record of a run.

- `FileEntry`, `ArtifactRef`, `Manifest`: what an artifact is made of and came from
- `RunRecord`: which artifact each stage of a run used
- `Estimate`, `Volume`: what `plan` foresees and the report holds against the measurement
"""

import hashlib
import json
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MANIFEST_VERSION = 1
RUN_RECORD_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Record):
    """One file of an artifact."""

    path: str = Field(description="name inside the artifact, with forward slashes")
    bytes: int = Field(description="size in bytes")
    sha256: str = Field(description="hex digest of the content")
    part: str | None = Field(None, description="path under <stage>/<key>/ where a shared partition output holds it")


def content_digest(files: list[FileEntry]) -> str:
    """sha256 over the sorted list of (path, bytes, sha256): equal content gives equal digests wherever it lies."""
    rows = sorted((entry.path, entry.bytes, entry.sha256) for entry in files)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


class ArtifactRef(_Record):
    """Names one committed artifact."""

    stage: str
    key: str = Field(description="sha256 of stage, version, config and input digests")
    attempt: str = Field(description="the run that made it")
    digest: str = Field(description="content digest")

    @property
    def label(self) -> str:
        """`dedup/3f9a01c2b4de/quiet-otter-3f9a`, the short form that commands print and take."""
        return f"{self.stage}/{self.key[:12]}/{self.attempt}"


class Volume(_Record):
    """How much of everything there is at a stage border; what estimates are made of."""

    documents: int = 0
    text_bytes: int = 0
    tokens: int = 0
    vocabulary_size: int = 0
    parameters: int = 0
    context_length: int = 0


class Estimate(_Record):
    """What a stage is expected to need."""

    seconds: float = Field(description="wall time")
    peak_memory_bytes: int = Field(description="resident memory of the driver and its workers together")
    flops: float = Field(0.0, description="floating-point operations of the network; 0 for data stages")
    output: Volume = Field(description="what the stage is expected to hand on")


class Manifest(_Record):
    """Everything about one artifact; written last, so what has no manifest does not exist."""

    manifest_version: int = MANIFEST_VERSION
    stage: str
    stage_version: int
    kind: str
    kind_version: int
    key: str
    attempt: str
    digest: str
    config: dict[str, Any]
    inputs: dict[str, ArtifactRef]
    sources: dict[str, str] = Field(default_factory=dict, description="fingerprints of data outside the store")
    files: list[FileEntry]
    counts: dict[str, int]
    metrics: dict[str, Any]
    volume: Volume
    estimate: Estimate | None = None
    code: dict[str, Any] = Field(description="git commit and whether the tree was dirty")
    packages: dict[str, str]
    device: dict[str, Any]
    started: datetime
    ended: datetime
    phases: dict[str, float] = Field(description="seconds per named phase")
    peak_memory_bytes: int

    @property
    def ref(self) -> ArtifactRef:
        """How other records name this artifact."""
        return ArtifactRef(stage=self.stage, key=self.key, attempt=self.attempt, digest=self.digest)

    @property
    def seconds(self) -> float:
        """Wall time from start to commit, the last attempt's only."""
        return (self.ended - self.started).total_seconds()

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.bytes for entry in self.files)


class StageOutcome(_Record):
    """What one stage did in a run."""

    action: Literal["reuse", "run"]
    why: str
    artifact: ArtifactRef
    seconds: float = Field(description="wall time spent in this run")


class RunRecord(_Record):
    """Pins each stage of a run to the artifact it used."""

    run_record_version: int = RUN_RECORD_VERSION
    run_id: str
    config_name: str
    config: dict[str, Any] = Field(description="the resolved run config")
    config_digest: str
    status: Literal["running", "finished", "failed", "interrupted"]
    base_run: str | None = Field(None, description="the run this one reran")
    forced: str | None = Field(None, description="stage that a rerun forced")
    last_stage: str | None = Field(None, description="where --until or --only stopped the run")
    host: str
    pid: int
    process_started: float = Field(description="start time of the process, so that a reused pid is not taken for it")
    started: datetime
    ended: datetime | None = None
    message: str | None = None
    stages: dict[str, StageOutcome] = Field(default_factory=dict)
