"""An attempt at an artifact, which exists once its manifest is written.

- `ArtifactWriter`: an attempt that is not committed yet; hashes while writing
- `HashingFile`, `table_bytes`: what it writes files and tables with
"""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from data_schemas.artifact_kinds import ArtifactKind
from data_schemas.errors import UnreadableRecordError
from data_schemas.manifest import FileEntry, Manifest, Volume
from infra.store.claims import FencedFolder
from infra.store.file_lists import with_lists
from infra.store.filesystem import Folder
from infra.store.records import parse_record

MANIFEST = "manifest.json"


class ArtifactWriter:
    """An attempt at an artifact; the artifact exists after `commit`."""

    def __init__(self, folder: Folder, stage: str, attempt: str, kind: ArtifactKind) -> None:
        """Start or continue an attempt.

        Args:
            folder: `<store>/<stage>/<key>`. If it is fenced, each owner of the run writes files of its own names, so
                that one that was paused and taken over cannot write into the files of the new owner.
            stage: name of the stage.
            attempt: id of the run.
            kind: kind of the artifact.
        """
        self.folder = folder
        self.stage = stage
        self.attempt = attempt
        self.kind = kind
        number = folder.claim.number if isinstance(folder, FencedFolder) else 1
        self._files_of_owner = f"{attempt}/owner-{number}" if number > 1 else ""
        self.counts: dict[str, int] = {}
        self.metrics: dict[str, Any] = {}
        self.volume = Volume()
        self.files: dict[str, FileEntry] = {}

    @contextmanager
    def create(self, path: str) -> Iterator[BinaryIO]:
        """Open a file of the artifact for writing; it is hashed while it is written."""
        part = f"{self._files_of_owner}/{path}" if self._files_of_owner else None
        with self.folder.create(part or f"{self.attempt}/{path}") as file:
            hashing = HashingFile(file)
            yield hashing  # type: ignore[misc]
        self.files[path] = FileEntry(path=path, bytes=hashing.bytes, sha256=hashing.sha256.hexdigest(), part=part)

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file."""
        with self.create(path) as file:
            file.write(data)

    def write_table(self, path: str, table: pa.Table) -> None:
        """Write a table as Parquet or Arrow, by the suffix of the path.

        Raises:
            ContractError: if the artifact's kind declares another schema, or no such table.
        """
        self.kind.check_table(path, table.schema, self.stage)
        self.write(path, table_bytes(path, table))

    def adopt(self, entry: FileEntry) -> None:
        """Add a file that a partition committed under `<stage>/<key>/parts/`."""
        self.files[entry.path] = entry

    def count(self, name: str, amount: int) -> None:
        """Add to one of the manifest's counts."""
        self.counts[name] = self.counts.get(name, 0) + amount

    def commit(self, manifest: Manifest) -> None:
        """Write the manifest, after which the artifact exists; lists of many files are written before it.

        An attempt has one manifest: if there is a readable one already, of an earlier owner of the run that was stopped
        before it could record its work, it stays.

        Raises:
            ContractError: if a file that the kind declares was not written.
            FencedError: if another process has taken over the run.
        """
        self.kind.check_files(list(self.files), self.stage)
        path, data = f"{self.attempt}/{MANIFEST}", with_lists(self.folder, manifest).to_json()
        if self.folder.create_exclusive(path, data):
            return
        try:
            parse_record(Manifest, self.folder.read(path), self.folder.full(path))
        except UnreadableRecordError:
            self.folder.write(path, data)


class HashingFile:
    """Hashes data while writing it to a file, so that it need not be read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: Any) -> int:
        """Write a bytes-like object."""
        view = memoryview(data)
        self.sha256.update(view)
        self.bytes += view.nbytes
        self._file.write(data)
        return view.nbytes


def table_bytes(path: str, table: pa.Table) -> bytes:
    """Serialize a table as Parquet (zstd) or as an Arrow file of one record batch, by the suffix of the path."""
    buffer = io.BytesIO()
    if path.endswith(".parquet"):
        pq.write_table(table, buffer, compression="zstd")
    else:
        with pa.ipc.new_file(buffer, table.schema) as file:
            for batch in table.combine_chunks().to_batches():
                file.write_batch(batch)
    return buffer.getvalue()
