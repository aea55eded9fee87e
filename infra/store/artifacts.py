"""The artifact store: immutable folders that exist once their manifest is written.

- `ArtifactStore`: finds and opens artifacts at `<store>/<stage>/<key>/<attempt>/`
- `Artifact`: a committed artifact, opened for reading
- `artifact_at`: an artifact by the URL of its folder, in any store
"""

import fnmatch
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from data_schemas.artifact_kinds import ArtifactKind
from data_schemas.errors import ContractError, DamagedArtifactError, NotFoundError, UnreadableRecordError
from data_schemas.manifest import ArtifactRef, FileEntry, Manifest
from infra.store.artifact_key import differ_only_in_packages
from infra.store.artifact_writer import MANIFEST, ArtifactWriter
from infra.store.claims import Claim, FencedFolder
from infra.store.file_lists import FileIndex
from infra.store.filesystem import REQUESTS_AT_ONCE, Folder
from infra.store.records import parse_record, report_once

CHECKED_TABLES = 16
"""Tables of a kind whose schemas a reader checks; each costs one to three requests."""


@dataclass(frozen=True)
class Artifact:
    """A committed artifact; picklable for worker processes."""

    folder: Folder
    manifest: Manifest

    @property
    def ref(self) -> ArtifactRef:
        """Reference to it in other records."""
        return self.manifest.ref

    def paths(self, pattern: str) -> list[str]:
        """Sorted paths of its files that match."""
        return sorted(entry.path for entry in self.files if fnmatch.fnmatchcase(entry.path, pattern))

    @property
    def files(self) -> list[FileEntry]:
        """All its files.

        Raises:
            DamagedArtifactError: if a list of files is missing or altered.
        """
        return self._index.all()

    def location(self, path: str) -> str:
        """Path of a file relative to `folder`, which is `<store>/<stage>/<key>`."""
        entry = self._entry(path)
        return entry.part or f"{self.manifest.attempt}/{path}"

    def sizes(self, paths: Sequence[str]) -> dict[str, int]:
        """Bytes of each of its files, by the manifest."""
        return {path: self._entry(path).bytes for path in paths}

    def _entry(self, path: str) -> FileEntry:
        entry = self._index.find(path)
        if entry is None:
            raise ContractError(f"the artifact {self.ref.label} contains no file {path}")
        return entry

    @cached_property
    def _index(self) -> FileIndex:
        return FileIndex(self.folder, self.manifest)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "manifest": self.manifest}

    def read(self, path: str) -> bytes:
        """Content of the whole file."""
        return self.folder.read(self.location(path))

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading."""
        return self.folder.open(self.location(path))

    def read_table(self, path: str) -> pa.Table:
        """Read a Parquet or Arrow file; Arrow files on a local disk are memory-mapped."""
        if path.endswith(".parquet"):
            with self.open(path) as file:
                return pq.ParquetFile(file).read()  # pq.read_table imports pandas: 0.7 s of a cached run
        if self.folder.is_local:
            with pa.memory_map(str(self.folder.local_path(self.location(path)))) as source:
                return pa.ipc.open_file(source).read_all()
        return pa.ipc.open_file(pa.py_buffer(self.read(path))).read_all()

    def check_sizes(self) -> None:
        """Check that all files exist with the sizes in the manifest, without reading them.

        Raises:
            DamagedArtifactError: naming the file and the command that rebuilds it.
        """
        self._raise_first(self._wrong_sizes())

    def damage(self) -> list[str]:
        """Read all files; returns a sentence for each that is missing, of the wrong size or altered."""
        try:
            problems = dict(self._wrong_sizes())
        except DamagedArtifactError as error:
            return [str(error).rpartition(";")[0]]
        for entry in self.files:
            if entry.path not in problems and _sha256(self.open(entry.path)) != entry.sha256:
                problems[entry.path] = "the content was altered (its sha256 differs from the manifest)"
        return [f"{self.folder.full(self.location(path))}: {problem}" for path, problem in problems.items()]

    def check_contract(self, kind: ArtifactKind, reader: str) -> None:
        """Check kind and tables against the kind that `reader` declares.

        The writer has checked every table. Of each kind of table up to `CHECKED_TABLES` are read again, the first, the
        last and others between them: a run that another version of the code continued differs from one on.

        Raises:
            ContractError: if they differ, naming both sides.
        """
        written = f"{self.manifest.kind} v{self.manifest.kind_version}"
        if written != kind.label:
            raise ContractError(
                f"{self.manifest.stage} wrote {written} ({self.ref.label}), but {reader} reads {kind.label}; "
                f"rebuild it with: headrace rerun {self.manifest.stage} --run latest"
            )
        tables: dict[int, list[str]] = {}
        for path in self.paths("*"):
            if (accepted := kind.accepted_schemas(path)) is not None:
                tables.setdefault(id(accepted), []).append(path)
        checked = [path for paths in tables.values() for path in _spread(paths, CHECKED_TABLES)]
        with ThreadPoolExecutor(1 if self.folder.is_local else REQUESTS_AT_ONCE) as pool:
            for path, schema in zip(checked, pool.map(self._schema, checked), strict=True):
                kind.check_table(path, schema, self.manifest.stage, reader)

    def _schema(self, path: str) -> pa.Schema:
        with self.open(path) as file:
            return pq.read_schema(file) if path.endswith(".parquet") else pa.ipc.open_file(file).schema

    def _wrong_sizes(self) -> Iterator[tuple[str, str]]:
        files = self.files
        locations = {entry.path: self.location(entry.path) for entry in files}
        sizes = self.folder.sizes(list(locations.values()))
        for entry in files:
            size = sizes[locations[entry.path]]
            if size is None:
                yield entry.path, "the file is missing"
            elif size != entry.bytes:
                yield entry.path, f"the file has {size} bytes, in the manifest it has {entry.bytes}"

    def _raise_first(self, problems: Iterator[tuple[str, str]]) -> None:
        for path, problem in problems:
            raise DamagedArtifactError(
                f"{self.folder.full(self.location(path))}: {problem}; "
                f"rebuild it with: headrace rerun {self.manifest.stage} --run latest"
            )


class ArtifactStore:
    """All artifacts under one URL."""

    def __init__(self, url: str) -> None:
        self.root = Folder(url)

    def key_folder(self, stage: str, key: str) -> Folder:
        """`<store>/<stage>/<key>`, the folder of all attempts and of the partitions that they share."""
        return self.root.child(f"{stage}/{key}")

    def writer(
        self, stage: str, key: str, attempt: str, kind: ArtifactKind, claim: Claim | None = None
    ) -> ArtifactWriter:
        """Start or continue an attempt; with a claim, everything that it writes is fenced."""
        folder = self.key_folder(stage, key)
        return ArtifactWriter(FencedFolder(folder.url, claim) if claim else folder, stage, attempt, kind)

    def open(self, ref: ArtifactRef) -> Artifact:
        """Open a committed artifact.

        Raises:
            NotFoundError: if it was deleted or never committed.
            UnreadableRecordError: if this version cannot read its manifest.
        """
        artifact = self._load(ref.stage, ref.key, ref.attempt)
        if artifact is None:
            raise NotFoundError(
                f"the artifact {ref.label} is not in {self.root.url}; rebuild it with: headrace rerun {ref.stage}"
            )
        return artifact

    def has(self, ref: ArtifactRef) -> bool:
        """Whether an artifact is committed, without reading its manifest."""
        return self.key_folder(ref.stage, ref.key).exists(f"{ref.attempt}/{MANIFEST}")

    def find_equal(self, ref: ArtifactRef) -> Artifact | None:
        """The artifact, or another attempt at its key with the same content; None if all are gone."""
        try:
            return self.open(ref)
        except NotFoundError:
            equal = (artifact for artifact in self.committed(ref.stage, ref.key) if artifact.ref.digest == ref.digest)
            return next(equal, None)

    def committed(self, stage: str, key: str) -> list[Artifact]:
        """All committed attempts at a key that this version can read, those of the newest run first."""
        return sorted(self._readable(stage, key, _report_skipped), key=_age, reverse=True)

    def of_any_packages(self, stage: str, key: str) -> list[Artifact]:
        """All committed artifacts at keys that differ from `key` only in the versions of packages, newest first."""
        keys = [other for other in self.keys(stage) if differ_only_in_packages(key, other)]
        artifacts = [artifact for other in keys for artifact in self.committed(stage, other)]
        return sorted(artifacts, key=_age, reverse=True)

    def keys(self, stage: str) -> list[str]:
        """Keys of a stage with any files."""
        return self.root.names(stage)

    def all(self, stage: str) -> list[Artifact]:
        """All committed artifacts of a stage that this version can read, newest first."""
        artifacts, unreadable = self.listing(stage)
        for error in unreadable:
            _report_skipped(error)
        return artifacts

    def listing(self, stage: str) -> tuple[list[Artifact], list[UnreadableRecordError]]:
        """All committed artifacts of a stage, newest first, and an error for each that this version cannot read."""
        unreadable: list[UnreadableRecordError] = []
        artifacts = [found for key in self.keys(stage) for found in self._readable(stage, key, unreadable.append)]
        return sorted(artifacts, key=_age, reverse=True), unreadable

    def _readable(self, stage: str, key: str, skipped: Callable[[UnreadableRecordError], None]) -> Iterator[Artifact]:
        for name in self.key_folder(stage, key).names():
            try:
                artifact = None if name == "parts" else self._load(stage, key, name)
            except UnreadableRecordError as error:
                skipped(error)
                continue
            if artifact is not None:
                yield artifact

    def _load(self, stage: str, key: str, attempt: str) -> Artifact | None:
        folder = self.key_folder(stage, key)
        try:
            data = folder.read(f"{attempt}/{MANIFEST}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Artifact(folder, parse_record(Manifest, data, folder.full(f"{attempt}/{MANIFEST}")))


def _spread(items: Sequence[str], limit: int) -> list[str]:
    """Up to `limit` items at equal distances, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[round(number * (len(items) - 1) / (limit - 1))] for number in range(limit)]


def _report_skipped(error: UnreadableRecordError) -> None:
    report_once(f"skipped: {error}")


def _age(artifact: Artifact) -> tuple[int, datetime, str]:
    """Order of attempts: that of their runs; clocks decide only between attempts of versions without numbers."""
    return artifact.manifest.sequence, artifact.manifest.ended, artifact.manifest.attempt


def artifact_at(url: str) -> Artifact:
    """Open the artifact in the folder `<store>/<stage>/<key>/<attempt>`.

    Raises:
        NotFoundError: if there is no committed artifact.
    """
    store, *names = url.rstrip("/").rsplit("/", 3)
    if len(names) == 3:
        stage, key, attempt = names
        artifact = ArtifactStore(store or "/")._load(stage, key, attempt)
        if artifact is not None:
            return artifact
    raise NotFoundError(
        f"{url} is not the folder of an artifact (<store>/<stage>/<key>/<run>, with a {MANIFEST}); "
        "see the folders that a run used with: headrace show latest"
    )


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    with file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
