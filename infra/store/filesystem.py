"""A small interface to any fsspec filesystem: a folder by URL, with atomic writes of whole files."""

import contextlib
import errno
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from glob import has_magic
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from data_schemas.errors import EnvironmentProblem
from infra.store.listings import (
    StoredFile,
    is_file,
    local_files,
    local_versions,
    modified,
    protocols,
    remove_empty,
    version,
)
from infra.store.local_writes import create_file, replace_file
from infra.store.uploads import ParallelUpload

for _protocol in ("s3", "s3a"):
    fsspec.register_implementation(
        _protocol, "infra.store.s3.StoreS3", clobber=True, errtxt="it needs s3fs: pip install 'headrace[s3]'"
    )
EXTRAS = {"gs": "gcs", "gcs": "gcs"}
"""Scheme -> extra that brings its package, besides S3's."""
REQUESTS_AT_ONCE = 32
"""Requests to an object store in parallel."""
FEW_FILES = 64
"""Files of one folder up to which each is a request of its own, since the folder may hold far more."""
_memory_lock = threading.Lock()


@dataclass(frozen=True)
class Folder:
    """A folder by URL (`./x`, `file://`, `s3://`, `memory://`); picklable, opened by the process that uses it."""

    url: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            # Cached listings would answer for the existence of files that other processes write.
            filesystem, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            extra = EXTRAS.get(self.url.partition("://")[0])
            helps = f"it needs a package: pip install 'headrace[{extra}]'" if extra else str(error)
            raise EnvironmentProblem(f"cannot open the store {self.url}: {helps}") from error
        return filesystem, str(root).rstrip("/")

    @property
    def filesystem(self) -> Any:
        """The fsspec filesystem."""
        return self._opened[0]

    @property
    def is_local(self) -> bool:
        """True on a local disk, where a rename is atomic and files can be memory-mapped."""
        return "file" in protocols(self.filesystem)

    @property
    def is_s3(self) -> bool:
        """True on S3, where files are uploaded in parts."""
        return "s3" in protocols(self.filesystem)

    @property
    def is_in_process(self) -> bool:
        """True for `memory://`, which other processes cannot access."""
        return "memory" in protocols(self.filesystem)

    def full(self, path: str = "") -> str:
        """Path inside the filesystem of `path` inside this folder."""
        root = self._opened[1]
        return f"{root}/{path}" if path else root

    def local_path(self, path: str = "") -> Path:
        """The full path as a `Path`; only on a local disk."""
        assert self.is_local, self.url
        return Path(self.full(path))

    def child(self, path: str) -> "Folder":
        """A folder inside this one."""
        return Folder(f"{self.url.rstrip('/')}/{path}")

    def exists(self, path: str) -> bool:
        """True if the file or folder exists."""
        return bool(self.filesystem.exists(self.full(path)))

    def size(self, path: str) -> int | None:
        """Size in bytes; None if there is no such file."""
        try:
            return int(self.filesystem.info(self.full(path))["size"])
        except FileNotFoundError:
            return None

    def sizes(self, paths: Sequence[str]) -> dict[str, int | None]:
        """Size of each file in bytes, None for each that does not exist.

        On object stores many files of one folder cost one listing, a request per 1,000 names; few a request each, in
        parallel.
        """
        if self.is_local:
            return {path: self.size(path) for path in paths}
        folders: dict[str, list[str]] = {}
        for path in paths:
            folders.setdefault(path.rpartition("/")[0], []).append(path)
        sizes: dict[str, int | None] = {}
        for folder, own in folders.items():
            if len(own) <= FEW_FILES:
                with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
                    sizes |= zip(own, pool.map(self.size, own), strict=True)
            else:
                listed = self._sizes_in(folder)
                sizes |= {path: listed.get(path.rpartition("/")[2]) for path in own}
                # A listing may lag behind; after some that are missing indeed, all are taken as such.
                missing = [path for path in own if sizes[path] is None][:FEW_FILES]
                sizes |= self.sizes(missing) if missing else {}
        return sizes

    def _sizes_in(self, folder: str) -> dict[str, int]:
        files = filter(is_file, self._entries(folder, detail=True))
        return {str(info["name"]).rpartition("/")[2]: int(info["size"]) for info in files}

    def _entries(self, path: str, detail: bool) -> list[Any]:
        """Entries of the listing of `path`, with or without details; none if there is no such folder."""
        try:
            return list(self.filesystem.ls(self.full(path), detail=detail))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def modified(self, path: str) -> float | None:
        """Time of a file's last change, seconds since 1970; None if there is no such file, or none is recorded."""
        try:
            return modified(self.filesystem.info(self.full(path)))
        except FileNotFoundError:
            return None

    def names(self, path: str = "") -> list[str]:
        """Sorted names directly inside `path`; empty if there is no such folder."""
        entries = (str(entry).rstrip("/") for entry in self._entries(path, detail=False))
        # An object store may list a marker of the folder.
        return sorted({entry.rsplit("/", 1)[-1] for entry in entries if entry != self.full(path)})

    def versions(self, ending: str) -> dict[str, str]:
        """Version of each file directly inside this folder whose name has the ending, by name; one listing.

        A file that was written again has another version: its ETag or generation, else its time and size.
        """
        if self.is_local:
            return local_versions(self.local_path(), ending)
        files = {str(info["name"]).rsplit("/", 1)[-1]: info for info in filter(is_file, self._entries("", detail=True))}
        return {name: version(info) for name, info in files.items() if name.endswith(ending)}

    def files(self, path: str) -> list[StoredFile]:
        """All files below `path`, recursively; empty if there is no such folder. Links are not followed."""
        if self.is_local:
            return [file._replace(path=f"{path}/{file.path}") for file in local_files(self.local_path(path))]
        start = len(self.full()) + 1
        listing = self.filesystem.find(self.full(path), detail=True)
        return [
            StoredFile(str(name)[start:], int(info["size"]), modified(info))
            for name, info in listing.items()
            if is_file(info)
        ]

    def read(self, path: str) -> bytes:
        """Content of the whole file, in one request."""
        # s3fs would ask for the size first, to read the ranges of large files in parallel.
        settings = {"max_concurrency": 1} if self.is_s3 else {}
        return cast(bytes, self.filesystem.cat_file(self.full(path), **settings))

    def read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        """Contents of whole files, None for each that does not exist; requests to object stores run in parallel."""
        if self.is_local or self.is_in_process or len(paths) < 2:
            return [self._read_if_exists(path) for path in paths]
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            return list(pool.map(self._read_if_exists, paths))

    def _read_if_exists(self, path: str) -> bytes | None:
        try:
            return self.read(path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of a file; on object stores one request for just these."""
        return cast(bytes, self.filesystem.cat_file(self.full(path), start=start, end=end))

    def open(self, path: str) -> BinaryIO:
        """Open for reading."""
        return cast(BinaryIO, self.filesystem.open(self.full(path), "rb"))

    def create(self, path: str) -> BinaryIO:
        """Open for writing, creating parent folders. Not atomic: only for files that a later commit makes valid.

        On S3 the file is uploaded in parts, in parallel, and exists once it is closed without an error.
        """
        if self.is_s3:
            return cast(BinaryIO, ParallelUpload(self.filesystem, self.full(path)))
        self._make_parent(path)
        return cast(BinaryIO, self.filesystem.open(self.full(path), "wb"))

    def write(self, path: str, data: bytes) -> None:
        """Write the whole file so that a reader sees the old one, the new one or none, but never a part.

        Local: a synced temporary file and a rename. Elsewhere: one PUT, which object stores make atomic.
        """
        self._make_parent(path)
        if not self.is_local:
            self.filesystem.pipe_file(self.full(path), data)
            return
        replace_file(self.local_path(path), data)

    def append(self, path: str, data: bytes, sync: bool = False) -> None:
        """Add to the end of a file, creating it; only on a local disk. A reader may see the last bytes cut off.

        Args:
            path: written by one process only.
            data: the bytes to add.
            sync: wait until all of the file is on the disk.
        """
        self._make_parent(path)
        with self.local_path(path).open("ab") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())

    def create_exclusive(self, path: str, data: bytes) -> bool:
        """Write the whole file unless it exists; of processes that try at once, exactly one receives True.

        Local: a hard link to a synced temporary file, so that the file is never half written. Object stores: a PUT
        with `If-None-Match: *` (`ifGenerationMatch=0`).

        Args:
            path: must not be removed afterwards, else a second process could receive True.
            data: must differ between callers: a request that was repeated after a lost answer finds its own content.

        Raises:
            EnvironmentProblem: if the filesystem has no exclusive creation.
        """
        self._make_parent(path)
        created = self._create(path, data) or (self.exists(path) and self.read(path) == data)
        if created and not (self.is_local or self.is_in_process) and self._create(path, data):
            raise self._no_exclusive_creation("it accepts conditional writes but ignores the condition")
        return created

    def _create(self, path: str, data: bytes) -> bool:
        if self.is_local:
            return create_file(self.local_path(path), data)
        if self.is_in_process:
            with _memory_lock:  # fsspec checks and writes in two steps
                if not self.filesystem.isfile(self.full(path)):
                    self.filesystem.pipe_file(self.full(path), data)
                    return True
                return False
        try:
            self.filesystem.pipe_file(self.full(path), data, mode="create")
        except FileExistsError:
            return False
        except (NotImplementedError, TypeError, ValueError) as error:
            raise self._no_exclusive_creation(f"{type(error).__name__}: {error}") from error
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            raise self._no_exclusive_creation(str(error)) from error
        return True

    def _no_exclusive_creation(self, found: str) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"the store {self.url} cannot create a file that must not exist yet, which gives a run its one owner "
            f"({found}); use a folder, or a store on s3:// or gs:// with conditional writes"
        )

    def remove(self, path: str = "") -> None:
        """Delete a file or a whole folder, if it exists."""
        if not has_magic(self.full(path)) or self.is_local:
            if self.filesystem.exists(self.full(path)):
                self.filesystem.rm(self.full(path), recursive=True)
        else:  # fsspec would take the path for a pattern, and remove what matches it
            for name in self.filesystem.find(self.full(path)):
                self.filesystem.rm_file(name)

    def remove_files(self, paths: Sequence[str]) -> None:
        """Delete files, if they exist, and on a local disk the folders that this empties; in few requests."""
        if self.is_local:
            for path in paths:
                self.local_path(path).unlink(missing_ok=True)
            remove_empty({parent for path in paths for parent in Path(path).parents[:-1]}, self.local_path())
        elif self.is_in_process:
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    self.filesystem.rm_file(self.full(path))
        elif has_magic(self.full()) or any(map(has_magic, paths)):  # fsspec would take the paths for patterns
            for path in paths:
                self.remove(path)
        elif paths:
            self.filesystem.rm([self.full(path) for path in paths])

    def _make_parent(self, path: str) -> None:
        if self.is_s3:
            return  # s3fs would look for the bucket before each write, and create one that it cannot see
        self.filesystem.makedirs(self.full(path).rsplit("/", 1)[0], exist_ok=True)
