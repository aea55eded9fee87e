"""A small interface to any fsspec filesystem: a folder by URL, with atomic writes of whole files."""

import os
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from data_schemas.errors import EnvironmentProblem


@dataclass(frozen=True)
class Folder:
    """A folder by URL (`./x`, `file://`, `s3://`, `memory://`); picklable, opened by the process that uses it."""

    url: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            filesystem, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise EnvironmentProblem(f"cannot open the store {self.url}: {error}") from error
        return filesystem, str(root).rstrip("/")

    @property
    def filesystem(self) -> Any:
        """The fsspec filesystem."""
        return self._opened[0]

    @property
    def is_local(self) -> bool:
        """True on a local disk, where a rename is atomic and files can be memory-mapped."""
        return "file" in _protocols(self.filesystem)

    @property
    def is_in_process(self) -> bool:
        """True for `memory://`, which other processes cannot access."""
        return "memory" in _protocols(self.filesystem)

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

    def names(self, path: str = "") -> list[str]:
        """Sorted names directly inside `path`; empty if there is no such folder."""
        self.filesystem.invalidate_cache()
        try:
            listing = self.filesystem.ls(self.full(path), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in listing)

    def read(self, path: str) -> bytes:
        """Content of the whole file."""
        return cast(bytes, self.filesystem.cat_file(self.full(path)))

    def open(self, path: str) -> BinaryIO:
        """Open for reading."""
        return cast(BinaryIO, self.filesystem.open(self.full(path), "rb"))

    def create(self, path: str) -> BinaryIO:
        """Open for writing, creating parent folders. Not atomic: only for files that a later commit makes valid."""
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
        target = self.local_path(path)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)

    def remove(self, path: str = "") -> None:
        """Delete a file or a whole folder, if it exists."""
        if self.filesystem.exists(self.full(path)):
            self.filesystem.rm(self.full(path), recursive=True)

    def _make_parent(self, path: str) -> None:
        self.filesystem.makedirs(self.full(path).rsplit("/", 1)[0], exist_ok=True)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
