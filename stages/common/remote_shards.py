"""Token shards on an object store, of which only the requested windows are read.

A shard is an Arrow file of one record batch, whose beginning tells where the flat values of `tokens` are; they are read
by ranges (`infra.store.range_reader`).

- `RemoteShards`: the flat tokens of some shards
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from data_schemas.errors import DamagedArtifactError
from infra.store.artifacts import Artifact
from infra.store.range_reader import Range, RangeReader

HEAD_BYTES = 16_384
MAGIC = b"ARROW1\0\0"
PREFIX = 8
"""Bytes of a continuation mark and a length, before each message."""


@dataclass(frozen=True)
class _Values:
    """The flat values of one shard."""

    path: str
    """Location in the artifact's folder."""
    offset: int
    count: int
    dtype: np.dtype[np.integer]

    def range(self, start: int, stop: int) -> Range:
        """Bytes of tokens [start, stop)."""
        width = self.dtype.itemsize
        return Range(self.path, self.offset + start * width, self.offset + stop * width)


class RemoteShards:
    """Flat tokens of shards; memory does not grow with the shards."""

    def __init__(self, artifact: Artifact, split: str, paths: Sequence[str]) -> None:
        """Read the beginning of each shard, in parallel.

        Args:
            artifact: token shards on an object store.
            split: their folder.
            paths: the shards.

        Raises:
            DamagedArtifactError: if a file is missing or no shard.
        """
        sizes = artifact.sizes(paths)
        locations = {path: artifact.location(path) for path in paths}
        name = f"{artifact.manifest.digest} {split}"
        self._folder = artifact.folder
        self._reader = RangeReader(artifact.folder, name, {locations[path]: sizes[path] for path in paths})
        heads = self._content([Range(locations[path], 0, min(sizes[path], HEAD_BYTES)) for path in paths])
        self._shards = [
            self._values(locations[path], sizes[path], head) for path, head in zip(paths, heads, strict=True)
        ]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each shard."""
        return [shard.count for shard in self._shards]

    def read(self, pieces: Sequence[tuple[int, int, int]]) -> list[npt.NDArray[np.integer]]:
        """Tokens [start, stop) of a shard, for each (shard, start, stop)."""
        ranges = [self._shards[shard].range(start, stop) for shard, start, stop in pieces]
        contents = self._content(ranges)
        return [
            np.frombuffer(data, self._shards[shard].dtype) for (shard, _, _), data in zip(pieces, contents, strict=True)
        ]

    def _content(self, ranges: Sequence[Range]) -> list[bytes]:
        try:
            return self._reader.read(ranges)
        except FileNotFoundError as error:
            missing = [path for path in sorted({wanted.path for wanted in ranges}) if not self._folder.exists(path)]
            raise DamagedArtifactError(
                f"{self._folder.full()}: a shard is missing ({', '.join(missing[:3])}); rebuild it with: "
                "headrace rerun tokenize --run latest"
            ) from error

    def _values(self, path: str, size: int, head: bytes) -> _Values:
        while (needed := _head_bytes(head)) > len(head) and len(head) < size:
            [head] = self._content([Range(path, 0, min(size, needed))])
        try:
            return _parsed(path, size, head)
        except (pa.ArrowInvalid, ValueError, KeyError, OSError) as error:
            raise DamagedArtifactError(
                f"{path} is no shard of tokens ({error}); rebuild it with: headrace rerun tokenize --run latest"
            ) from error


def _head_bytes(head: bytes) -> int:
    """Bytes of the two messages before the values, as far as the beginning tells."""
    end = len(MAGIC)
    for _ in range(2):
        if len(head) < end + PREFIX:
            return end + PREFIX
        end += PREFIX + max(0, int.from_bytes(head[end + 4 : end + PREFIX], "little", signed=True))
    return end


def _parsed(path: str, size: int, head: bytes) -> _Values:
    if not head.startswith(MAGIC):
        raise ValueError("it does not begin as an Arrow file")
    # Memory of the file's size, of which only the beginning is ever touched: values keep their distance from it.
    memory = mmap.mmap(-1, size)
    memory[: len(head)] = head
    whole = pa.py_buffer(memory)
    reader = pa.ipc.open_stream(whole.slice(len(MAGIC)))
    dtype = np.dtype(reader.schema.field("tokens").type.value_type.to_pandas_dtype())
    try:
        values = reader.read_next_batch().column("tokens").values
    except StopIteration:
        return _Values(path, 0, 0, dtype)
    if not len(values):
        return _Values(path, 0, 0, dtype)
    start = values.buffers()[1].address - whole.address + values.offset * dtype.itemsize
    shard = _Values(path, start, len(values), dtype)
    if shard.offset + shard.count * dtype.itemsize > size:
        raise ValueError("its tokens would end after the file")
    return shard
