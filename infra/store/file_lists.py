"""Files of an artifact, listed in its manifest, or in Parquet files beside it if they are many.

A list is `<attempt>/manifest-<16 digits of its sha256>.parquet`, sorted by path; the manifest names the first and the
last path of each. It is read when one of its files is needed. Two owners of a run write lists of different names, or
the same.

- `FileIndex`: the files of an artifact, by path
- `with_lists`: a manifest whose files were moved to lists
"""

import bisect
import hashlib
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.errors import DamagedArtifactError
from data_schemas.manifest import FileEntry, FileList, Manifest
from infra.store.filesystem import Folder

MAX_IN_MANIFEST = 1_000
"""Files that a manifest lists itself."""
FILES_PER_LIST = 10_000
SCHEMA = pa.schema([
    pa.field("path", pa.string(), nullable=False), pa.field("bytes", pa.int64(), nullable=False),
    pa.field("sha256", pa.string(), nullable=False), pa.field("part", pa.string()),
])  # fmt: skip


class FileIndex:
    """The files of one artifact; lists are read once, when they are needed."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        """Open the files of the artifact whose `<store>/<stage>/<key>` is `folder`."""
        self._folder, self._manifest = folder, manifest
        self._entries: dict[str, FileEntry] = {entry.path: entry for entry in manifest.files}
        self._unread = list(manifest.file_lists)
        self._first = [listed.first for listed in self._unread]
        self._read: set[str] = set()

    def find(self, path: str) -> FileEntry | None:
        """The entry of a file; None if the artifact has no such file.

        Raises:
            DamagedArtifactError: if the list that it is in is missing or altered.
        """
        if path not in self._entries and self._unread:
            number = bisect.bisect_right(self._first, path) - 1
            if number >= 0 and path <= self._unread[number].last:
                self._load([self._unread[number]])
        return self._entries.get(path)

    def all(self) -> list[FileEntry]:
        """All entries, sorted by path if they are in lists.

        Raises:
            DamagedArtifactError: if a list is missing or altered.
        """
        if not self._unread:
            return self._manifest.files
        self._load(self._unread)
        return [self._entries[path] for path in sorted(self._entries)]

    def _load(self, lists: Sequence[FileList]) -> None:
        missing = [listed for listed in lists if listed.name not in self._read]
        paths = [f"{self._manifest.attempt}/{listed.name}" for listed in missing]
        for listed, path, data in zip(missing, paths, self._folder.read_many(paths), strict=True):
            problem = "is missing" if data is None else "was altered (its sha256 differs from the manifest)"
            if data is None or hashlib.sha256(data).hexdigest() != listed.sha256:
                raise DamagedArtifactError(
                    f"{self._folder.full(path)}: the list of files {problem}; "
                    f"rebuild it with: headrace rerun {self._manifest.stage} --run latest"
                )
            self._entries |= {entry.path: entry for entry in _entries(data)}
            self._read.add(listed.name)


def with_lists(folder: Folder, manifest: Manifest) -> Manifest:
    """The manifest as it is stored: with many files, these are written to lists first.

    Args:
        folder: `<store>/<stage>/<key>`; fenced, if the manifest is.
        manifest: with all files.
    """
    files = sorted(manifest.files, key=lambda entry: entry.path)
    if len(files) <= MAX_IN_MANIFEST:
        return manifest
    lists = []
    for start in range(0, len(files), FILES_PER_LIST):
        some = files[start : start + FILES_PER_LIST]
        data = _parquet(some)
        digest = hashlib.sha256(data).hexdigest()
        listed = FileList(
            name=f"manifest-{digest[:16]}.parquet", bytes=len(data), sha256=digest, first=some[0].path,
            last=some[-1].path, files=len(some), file_bytes=sum(entry.bytes for entry in some),
        )  # fmt: skip
        folder.write(f"{manifest.attempt}/{listed.name}", data)
        lists.append(listed)
    return manifest.model_copy(update={"files": [], "file_lists": lists})


def _parquet(entries: Sequence[FileEntry]) -> bytes:
    columns = {name: [getattr(entry, name) for entry in entries] for name in SCHEMA.names}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, SCHEMA), buffer, compression="zstd", use_dictionary=False)
    return buffer.getvalue()


def _entries(data: bytes) -> list[FileEntry]:
    columns = pq.read_table(pa.BufferReader(data), schema=SCHEMA).to_pydict()
    rows = zip(*(columns[name] for name in SCHEMA.names), strict=True)
    return [FileEntry.model_construct(**dict(zip(SCHEMA.names, row, strict=True))) for row in rows]
