"""The manifest, whose presence makes an artifact exist, and the record of a run.

- `FileEntry`, `FileList`, `ArtifactRef`, `Manifest`: files and provenance of an artifact
- `RunRecord`: the artifact that each stage of a run used
- `Estimate`, `Work`, `Volume`: costs and sizes that `plan` predicts and the report compares with the measured ones
"""

import hashlib
import json
from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from data_schemas.config import ComputesOn

MANIFEST_VERSION = 4
"""Version 3 added lists of files, version 4 what the estimate was computed from."""
RUN_RECORD_VERSION = 3


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("manifest_version", "run_record_version", check_fields=False)
    @classmethod
    def _check_version(cls, version: int, info: ValidationInfo) -> int:
        newest = {"manifest_version": MANIFEST_VERSION, "run_record_version": RUN_RECORD_VERSION}[info.field_name or ""]
        if version > newest:
            raise ValueError(f"version {version}, and the newest that can be read is {newest}")
        return version


class FileEntry(_Record):
    """One file of an artifact."""

    path: str = Field(description="name inside the artifact, with forward slashes")
    bytes: int = Field(description="size in bytes")
    sha256: str = Field(description="hex digest of the content")
    part: str | None = Field(
        None, description="path under <stage>/<key>/, unless <attempt>/<path>: of a shared partition or a later owner"
    )


class FileList(_Record):
    """A Parquet file with entries of an artifact, sorted by path; see `infra.store.file_lists`."""

    name: str = Field(description="name in the attempt's folder")
    bytes: int
    sha256: str = Field(description="hex digest of the content")
    first: str = Field(description="path of its first file")
    last: str = Field(description="path of its last file")
    files: int = Field(description="number of files")
    file_bytes: int = Field(description="total size of these files in bytes")


def content_digest(files: list[FileEntry]) -> str:
    """sha256 over the sorted list of (path, bytes, sha256); independent of where the files are stored."""
    rows = sorted((entry.path, entry.bytes, entry.sha256) for entry in files)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


class ArtifactRef(_Record):
    """Identifies one committed artifact."""

    stage: str
    key: str = Field(description="sha256 of stage, version, config, input digests, sources and package versions")
    attempt: str = Field(description="id of the run that made it")
    digest: str = Field(description="content digest")

    @property
    def label(self) -> str:
        """Short form that commands print and accept, such as `dedup/3f9a01c2b4de/quiet-otter-3f9a`."""
        return f"{self.stage}/{self.key[:12]}/{self.attempt}"


class Volume(_Record):
    """Amount of data in a stage's output; estimates are computed from it."""

    source_bytes: int = 0
    """Bytes of the files to read; only of the sources themselves."""
    documents: int = 0
    text_bytes: int = 0
    unspaced_bytes: int = 0
    """Bytes of text in scripts without spaces between words."""
    tokens: int = 0
    vocabulary_size: int = 0
    parameters: int = 0
    context_length: int = 0

    def scaled(self, documents: int, text_bytes: int) -> "Volume":
        """Volume of that many documents and bytes with the same share of scripts without spaces."""
        unspaced = self.unspaced_bytes * text_bytes // max(self.text_bytes, 1)
        return Volume(documents=documents, text_bytes=text_bytes, unspaced_bytes=unspaced)


class Work(_Record):
    """An amount of one kind of work, and the rate at which it is planned."""

    kind: str = Field(description="kind that has a rate of its own, such as clean or train.bf16")
    variant: str = Field("", description="settings that the rate depends on; empty: none")
    amount: float = Field(ge=0, description="bytes, FLOPs, or starts, by the kind")
    rate: float = Field(gt=0, description="amount per second and process")
    parallel: float = Field(1.0, gt=0, description="processes that share the work")
    phases: tuple[str, ...] = Field((), description="phases of the stage that do this; empty: what the others leave")
    source: Literal["learned", "calibrated", "table"] = Field("table", description="origin of the rate")

    @property
    def seconds(self) -> float:
        """Wall time."""
        return self.amount / self.rate / self.parallel


class Estimate(_Record):
    """Predicted costs of a stage."""

    seconds: float = Field(description="wall time; that of all work, if it is divided into kinds")
    peak_memory_bytes: int = Field(description="resident memory of the driver and its workers in total")
    flops: float = Field(0.0, description="floating-point operations of the network; 0 for data stages")
    written_bytes: int = Field(0, description="size of the artifact; 0: not estimated")
    bits_per_byte: float | None = Field(
        None, description="of the pretrained network on held-out text, if a scaling law of the store predicts it"
    )
    work: tuple[Work, ...] = Field((), description="the work that takes the time, by kind")
    output: Volume = Field(description="predicted output of the stage")

    @classmethod
    def of_work(cls, *work: Work, peak_memory_bytes: float, output: Volume, **fields: Any) -> "Estimate":
        """Estimate whose time is that of the work; work of no amount is left out."""
        done = tuple(part for part in work if part.amount > 0)
        seconds = sum(part.seconds for part in done)
        return cls(seconds=seconds, peak_memory_bytes=int(peak_memory_bytes), work=done, output=output, **fields)

    def at_rates(self, work: tuple[Work, ...]) -> "Estimate":
        """The same work at other rates."""
        return self.model_copy(update={"work": work, "seconds": sum(part.seconds for part in work)})


class Manifest(_Record):
    """Contents and provenance of one artifact; written last, so an artifact without a manifest does not exist."""

    manifest_version: int = MANIFEST_VERSION
    stage: str
    stage_version: int
    kind: str
    kind_version: int
    key: str
    attempt: str
    sequence: int = Field(0, description="sequence number of the run that made it; orders attempts; 0 before version 2")
    digest: str
    config: dict[str, Any]
    inputs: dict[str, ArtifactRef]
    sources: dict[str, str] = Field(default_factory=dict, description="fingerprints of data outside the store")
    files: list[FileEntry] = Field(description="empty if there are lists; `Artifact.files` has them in any case")
    file_lists: list[FileList] = Field(default_factory=list, description="lists of many files, in order of their paths")
    counts: dict[str, int]
    metrics: dict[str, Any]
    volume: Volume
    estimate: Estimate | None = Field(None, description="registered before the stage started")
    incomplete: tuple[str, ...] = Field(
        (), description="reasons why the time is not that of the whole stage; compared with no plan then"
    )
    code: dict[str, Any] = Field(description="git commit and whether the tree was dirty")
    packages: dict[str, str]
    device: dict[str, Any]
    started: datetime
    ended: datetime
    phases: dict[str, float] = Field(description="seconds per named phase")
    peak_memory_bytes: int

    @property
    def ref(self) -> ArtifactRef:
        """Reference to this artifact in other records."""
        return ArtifactRef(stage=self.stage, key=self.key, attempt=self.attempt, digest=self.digest)

    @property
    def seconds(self) -> float:
        """Wall time from start to commit of the last attempt."""
        return (self.ended - self.started).total_seconds()

    @property
    def total_bytes(self) -> int:
        """Total size of all files in bytes."""
        return sum(entry.bytes for entry in self.files) + sum(listed.file_bytes for listed in self.file_lists)

    @property
    def file_count(self) -> int:
        """Number of files."""
        return len(self.files) + sum(listed.files for listed in self.file_lists)

    def to_json(self) -> bytes:
        """Content of `manifest.json`; readable by earlier versions if there are no lists."""
        return self.model_dump_json(indent=1, exclude=None if self.file_lists else {"file_lists"}).encode()


class StageOutcome(_Record):
    """Outcome of one stage in a run."""

    action: Literal["reuse", "run"]
    why: str
    artifact: ArtifactRef
    seconds: float = Field(description="wall time spent in this run")


class RunRecord(_Record):
    """State of a run, with the artifact that each of its stages used."""

    run_record_version: int = RUN_RECORD_VERSION
    run_id: str
    config_name: str
    config: dict[str, Any] = Field(description="the resolved run config")
    config_digest: str
    status: Literal["running", "finished", "failed", "interrupted"]
    base_run: str | None = Field(None, description="id of the run that this run reran")
    forced: str | None = Field(None, description="stage that the rerun forced")
    precision: dict[str, str] = Field(
        default_factory=dict,
        description="precision that `auto` took when the run began, by what computes (`ComputesOn`)",
    )
    last_stage: str | None = Field(None, description="last stage of the run, by --until or --only")
    sequence: int = Field(0, description="number that the store gave the run when it began; 0 before version 2")
    claim: int = Field(0, description="fencing number of the process that wrote the record; 0 before version 2")
    headrace_version: str = Field("", description="version that wrote the record")
    host: str
    boot_id: str = Field("", description="boot of the host; empty before version 2")
    pid_namespace: str = Field("", description="inode of the pid namespace in which the pid is valid")
    pid: int
    process_started: float = Field(
        description="clock ticks from boot to the start of the process, to detect a reused pid; seconds since 1970 "
        "before version 2 and on systems without /proc"
    )
    started: datetime
    ended: datetime | None = None
    message: str | None = None
    stages: dict[str, StageOutcome] = Field(default_factory=dict)

    @field_validator("precision", mode="before")
    @classmethod
    def _of_all_devices(cls, value: Any) -> Any:
        """Before version 3 one precision, that of the processor."""
        if value is None or isinstance(value, str):
            return dict.fromkeys(get_args(ComputesOn), value) if value else {}
        return value
