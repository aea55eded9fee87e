"""What is read from and written to `memory://`: requests and bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

from fsspec.implementations.memory import MemoryFile, MemoryFileSystem


@dataclass
class Counts:
    """Requests and bytes since the start."""

    reads: int = 0
    """Files opened for reading, and ranges read."""
    bytes_read: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    """Path -> size of each file written."""

    @property
    def files_written(self) -> int:
        """Number of different files."""
        return len(self.sizes)

    @property
    def bytes_written(self) -> int:
        """Bytes of all these files."""
        return sum(self.sizes.values())


@contextmanager
def counted() -> Iterator[Counts]:
    """Count while the block runs; markers and manifests count too."""
    counts = Counts()
    read, cat, pipe, opened = (
        MemoryFile.read,
        MemoryFileSystem.cat_file,
        MemoryFileSystem.pipe_file,
        MemoryFileSystem._open,
    )

    def counting_read(self, *arguments):
        data = read(self, *arguments)
        counts.bytes_read += len(data)
        return data

    def counting_cat(self, path, start=None, end=None, **settings):
        data = cat(self, path, start, end, **settings)
        counts.reads += 1
        counts.bytes_read += len(data)
        return data

    def counting_pipe(self, path, value, mode="overwrite", **settings):
        counts.sizes[self._strip_protocol(path)] = len(value)
        return pipe(self, path, value, mode, **settings)

    def counting_open(self, path, mode="rb", *arguments, **settings):
        counts.reads += mode == "rb"
        return opened(self, path, mode, *arguments, **settings)

    with (
        patch.object(MemoryFile, "read", counting_read),
        patch.object(MemoryFileSystem, "cat_file", counting_cat),
        patch.object(MemoryFileSystem, "pipe_file", counting_pipe),
        patch.object(MemoryFileSystem, "_open", counting_open),
    ):
        yield counts
