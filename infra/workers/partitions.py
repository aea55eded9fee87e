"""Parallel map over partitions: bounded memory, a cap on partitions in flight, each output committed by itself.

The same stage code runs in this process, in local processes or as Ray tasks.

A partition's files are stored under `<stage>/<key>/parts/data/` by their sha256 and listed in a marker
`parts/<phase>/<partition>.json`, which is written last: on resume, partitions with a marker are skipped. Two attempts
write the same bytes of a partition to the same names, so neither can damage the other's output.

A partition that takes long commits its output in pieces (`infra/workers/pieces.py`), and is resumed after the last one.
"""

import contextlib
import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from pydantic import BaseModel

from data_schemas.artifact_kinds import ArtifactKind
from data_schemas.errors import ConfigError
from data_schemas.manifest import FileEntry
from infra.control_groups import cpu_count
from infra.named_errors import named_errors
from infra.progress import ProgressListener, SilentListener
from infra.store.artifact_writer import ArtifactWriter, table_bytes
from infra.store.filesystem import Folder
from infra.workers.capacity import Engine
from infra.workers.in_flight import run_in_flight
from infra.workers.pieces import CommittedPieces
from infra.workers.ray_partitions import TaskNeeds, run_on_ray


class PartitionMarker(BaseModel):
    """Marks a partition as finished and lists its output."""

    attempt: str
    files: list[FileEntry]
    counts: dict[str, int]


class PartitionWriter:
    """Writes the output files of one partition, which are small enough to be built in memory."""

    def __init__(self, folder: Folder, stage: str, kind: ArtifactKind, pieces: CommittedPieces | None = None) -> None:
        self._folder = folder
        self._stage = stage
        self._kind = kind
        self._pieces = pieces
        self._files_in_pieces = 0
        self.files: list[FileEntry] = []
        self.counts: dict[str, int] = {}

    def resume(self, inputs: str) -> Mapping[str, Any] | None:
        """Take over the pieces that an earlier attempt committed; returns the state of the last one, None if there is
        none.

        Args:
            inputs: digest of all that decides the output of this partition; pieces of other inputs are ignored.
        """
        assert not self.files and not self.counts, "resumed after something was written"
        pieces = self._pieces.resume(inputs) if self._pieces else []
        self.files = [entry for piece in pieces for entry in piece.files]
        self._files_in_pieces = len(self.files)
        self.counts = dict(pieces[-1].counts) if pieces else {}
        return pieces[-1].state if pieces else None

    def commit_piece(self, state: Mapping[str, Any]) -> None:
        """Commit the files and counts since the last piece.

        Args:
            state: what the function needs to continue from here; JSON values.
        """
        if self._pieces is not None:
            self._pieces.commit(self.files[self._files_in_pieces :], self.counts, state)
            self._files_in_pieces = len(self.files)

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file."""
        sha256 = hashlib.sha256(data).hexdigest()
        part = f"parts/data/{sha256}{PurePosixPath(path).suffix}"
        self._folder.write(part, data)  # even if it exists already: this repairs a damaged file
        self.files.append(FileEntry(path=path, bytes=len(data), sha256=sha256, part=part))

    def write_table(self, path: str, table: pa.Table) -> None:
        """Write a Parquet or Arrow table; its schema is checked if the artifact's kind declares the table."""
        if self._kind.accepted_schemas(path) is not None:
            self._kind.check_table(path, table.schema, self._stage)
        self.write(path, table_bytes(path, table))

    def count(self, name: str, amount: int) -> None:
        """Add to one of the artifact's counts."""
        self.counts[name] = self.counts.get(name, 0) + amount


@dataclass(frozen=True)
class Partition:
    """One unit of work: a name that is the same in every rerun, and the input of the function."""

    name: str
    payload: Any


@dataclass(frozen=True)
class PartitionResult:
    """Output of one partition; picklable."""

    name: str
    folder: Folder
    marker: PartitionMarker

    def location(self, path: str) -> str:
        """Path, relative to `folder`, of the file that the partition function wrote to `path`."""
        entry = next(entry for entry in self.marker.files if entry.path == path)
        assert entry.part is not None
        return entry.part

    def read_table(self, path: str) -> pa.Table:
        """Read a table by the path that the partition function wrote it to."""
        with self.folder.open(self.location(path)) as file:
            return pq.read_table(file) if path.endswith(".parquet") else pa.ipc.open_file(file).read_all()

    def adopt_into(self, out: ArtifactWriter) -> None:
        """Add its files and counts to the artifact."""
        for entry in self.marker.files:
            out.adopt(entry)
        for name, amount in self.marker.counts.items():
            out.count(name, amount)


PartitionFunction = Callable[[Any, PartitionWriter], None]


@dataclass(frozen=True)
class _Task:
    """Picklable function of one partition, for any worker process."""

    folder: Folder
    stage: str
    kind: ArtifactKind
    attempt: str
    phase: str
    function: PartitionFunction
    fresh: bool

    def __call__(self, partition: Partition) -> PartitionMarker:
        with named_errors(self.folder.url):  # here, since a library's own errors may not survive the way back
            pieces = CommittedPieces(self.folder, self.phase, partition.name, self.attempt, self.fresh)
            writer = PartitionWriter(self.folder, self.stage, self.kind, pieces)
            self.function(partition.payload, writer)
            marker = PartitionMarker(attempt=self.attempt, files=writer.files, counts=writer.counts)
            self.folder.write(_marker_path(self.phase, partition.name), marker.model_dump_json().encode())
        return marker


@dataclass
class PartitionMap:
    """Maps a function over partitions for one attempt of one stage."""

    folder: Folder
    stage: str
    kind: ArtifactKind
    attempt: str
    engine: Engine = "inline"
    workers: int | None = None
    """Partitions run at once; by default one per core, on Ray as many as the cluster has room for."""
    fresh: bool = False
    listener: ProgressListener = field(default_factory=SilentListener)
    needs: TaskNeeds = field(default_factory=TaskNeeds)
    """Resources of a partition on Ray."""
    reused: list[str] = field(default_factory=list)
    """Phases of which other attempts had finished partitions."""

    def map(self, phase: str, function: PartitionFunction, partitions: Sequence[Partition]) -> list[PartitionResult]:
        """Run the function on every unfinished partition; results are in the order of `partitions`.

        Args:
            phase: name of this step of the stage; part of the markers' path.
            function: a module-level function (or `functools.partial` of one) of (payload, writer).
            partitions: units of work with unique names.

        Raises:
            ConfigError: if the engine cannot access the store.
            Exception: raised by the function; partitions finished before it stay finished.
        """
        assert len({partition.name for partition in partitions}) == len(partitions), "partition names repeat"
        if self.folder.is_in_process and self.engine != "inline":
            raise ConfigError(
                f"execution.engine is {self.engine!r}, but the store {self.folder.url} exists in this process only; "
                "use execution.engine=inline or a store that workers can access"
            )
        done = self._finished(phase, partitions)
        pending = [partition for partition in partitions if partition.name not in done]
        if any(marker.attempt != self.attempt for marker in done.values()):
            self.reused.append(phase)
        task = _Task(self.folder, self.stage, self.kind, self.attempt, phase, function, self.fresh)
        counts = sum((Counter(marker.counts) for marker in done.values()), Counter[str]())
        self._report(phase, len(done), len(partitions), counts)
        for name, marker in self._run(task, pending):
            done[name] = marker
            counts.update(marker.counts)
            self._report(phase, len(done), len(partitions), counts)
        return [PartitionResult(partition.name, self.folder, done[partition.name]) for partition in partitions]

    def _report(self, phase: str, done: int, total: int, counts: Counter[str]) -> None:
        self.listener.measured(phase, dict(counts))
        self.listener.advanced(phase, done, total, f"{done} of {total} partitions")

    def _finished(self, phase: str, partitions: Sequence[Partition]) -> dict[str, PartitionMarker]:
        """Markers of the partitions whose output is complete, in few requests however many there are."""
        written = set(self.folder.names(f"parts/{phase}"))
        names = [partition.name for partition in partitions if f"{partition.name}.json" in written]
        markers = {}
        contents = self.folder.read_many([_marker_path(phase, name) for name in names])
        for name, data in zip(names, contents, strict=True):
            with contextlib.suppress(ValueError):
                marker = PartitionMarker.model_validate_json(data or b"")
                if not self.fresh or marker.attempt == self.attempt:
                    markers[name] = marker
        sizes = self.folder.sizes([entry.part or "" for marker in markers.values() for entry in marker.files])
        return {
            name: marker
            for name, marker in markers.items()
            if all(sizes[entry.part or ""] == entry.bytes for entry in marker.files)
        }

    def _run(self, task: _Task, pending: list[Partition]) -> Iterator[tuple[str, PartitionMarker]]:
        if self.engine == "inline" or len(pending) == 0:
            return ((partition.name, task(partition)) for partition in pending)
        if self.engine == "processes":
            return _run_in_processes(task, pending, self.workers or cpu_count())
        names = [partition.name for partition in pending]
        return run_on_ray(task, names, pending, self.needs, self.workers)


def _marker_path(phase: str, name: str) -> str:
    return f"parts/{phase}/{name}.json"


def _run_in_processes(task: _Task, pending: list[Partition], workers: int) -> Iterator[tuple[str, PartitionMarker]]:
    spawn = multiprocessing.get_context("spawn")  # fork is unsafe beside the flow engine's threads
    size = min(workers, len(pending))
    pool = ProcessPoolExecutor(size, mp_context=spawn, initializer=_receive, initargs=(task,))
    try:
        for index, future in run_in_flight(
            len(pending), lambda index: pool.submit(_call_received, pending[index]), lambda: 2 * workers
        ):
            yield pending[index].name, future.result()
    except BaseException:  # a failed partition, a timeout or an interrupt: the others end at once
        for process in list(pool._processes.values()):
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_received: list[_Task] = []
"""The task of this worker process: sent once, as it may list all files of a corpus."""


def _receive(task: _Task) -> None:
    _received[:] = [task]


def _call_received(partition: Partition) -> PartitionMarker:
    return _received[0](partition)
