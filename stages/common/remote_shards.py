"""Token shards on an object store, of which only the requested windows are read.

A shard is an Arrow file of one record batch, whose beginning tells where the values of each column are; they are read
by ranges (`infra.store.range_reader`).

- `RemoteShards`: the flat tokens of some shards, and their documents
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

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
    """Values of one buffer of a shard."""

    path: str
    """Location in the artifact's folder."""
    offset: int
    count: int
    dtype: np.dtype[np.integer]

    def range(self, start: int, stop: int) -> Range:
        """Bytes of values [start, stop)."""
        width = self.dtype.itemsize
        return Range(self.path, self.offset + start * width, self.offset + stop * width)


@dataclass(frozen=True)
class _Shard:
    """Where the values of a shard's columns are."""

    tokens: _Values
    token_starts: _Values
    ids: _Values
    id_starts: _Values
    bytes: _Values


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
            self._shard(locations[path], sizes[path], head) for path, head in zip(paths, heads, strict=True)
        ]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each shard."""
        return [shard.tokens.count for shard in self._shards]

    def read(self, pieces: Sequence[tuple[int, int, int]]) -> list[npt.NDArray[np.integer]]:
        """Tokens [start, stop) of a shard, for each (shard, start, stop)."""
        return self._arrays([(self._shards[shard].tokens, start, stop) for shard, start, stop in pieces])

    def document_ids(self) -> list[list[str]]:
        """Ids of the documents of each shard."""
        starts = self._whole([shard.id_starts for shard in self._shards])
        texts = [data.tobytes() for data in self._whole([shard.ids for shard in self._shards])]
        return [
            [text[start:stop].decode() for start, stop in pairwise(borders.tolist())]
            for text, borders in zip(texts, starts, strict=True)
        ]

    def document_bytes(self) -> list[npt.NDArray[np.integer]]:
        """UTF-8 bytes of the text of each document, (documents,) for each shard."""
        return self._whole([shard.bytes for shard in self._shards])

    def token_starts(self) -> list[npt.NDArray[np.integer]]:
        """First token of each document and the end of the last, (documents + 1,) for each shard."""
        return self._whole([shard.token_starts for shard in self._shards])

    def _whole(self, values: Sequence[_Values]) -> list[npt.NDArray[np.integer]]:
        return self._arrays([(some, 0, some.count) for some in values])

    def _arrays(self, pieces: Sequence[tuple[_Values, int, int]]) -> list[npt.NDArray[np.integer]]:
        contents = iter(self._content([values.range(start, stop) for values, start, stop in pieces if stop > start]))
        return [np.frombuffer(next(contents) if stop > start else b"", of.dtype) for of, start, stop in pieces]

    def _content(self, ranges: Sequence[Range]) -> list[bytes]:
        try:
            return self._reader.read(ranges)
        except FileNotFoundError as error:
            missing = [path for path in sorted({wanted.path for wanted in ranges}) if not self._folder.exists(path)]
            raise DamagedArtifactError(
                f"{self._folder.full()}: a shard is missing ({', '.join(missing[:3])}); rebuild it with: "
                "headrace rerun tokenize --run latest"
            ) from error

    def _shard(self, path: str, size: int, head: bytes) -> _Shard:
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


def _parsed(path: str, size: int, head: bytes) -> _Shard:
    if not head.startswith(MAGIC):
        raise ValueError("it does not begin as an Arrow file")
    # Memory of the file's size, of which only the beginning is ever touched: values keep their distance from it.
    memory = mmap.mmap(-1, size)
    memory[: len(head)] = head
    whole = pa.py_buffer(memory)
    reader = pa.ipc.open_stream(whole.slice(len(MAGIC)))
    try:
        batch = reader.read_next_batch()
    except StopIteration:
        batch = pa.RecordBatch.from_pylist([], reader.schema)
    tokens, ids = batch.column("tokens"), batch.column("document_id")
    buffer = partial(_buffer, path, size, whole.address)
    starts = batch.num_rows + 1 if batch.num_rows else 0
    return _Shard(
        tokens=buffer(tokens.values.buffers()[1], len(tokens.values), tokens.type.value_type.to_pandas_dtype()),
        token_starts=buffer(tokens.buffers()[1], starts, np.int32),
        ids=buffer(ids.buffers()[2], ids.buffers()[2].size if starts else 0, np.uint8),
        id_starts=buffer(ids.buffers()[1], starts, np.int32),
        bytes=buffer(batch.column("bytes").buffers()[1], batch.num_rows, np.int64),
    )


def _buffer(path: str, size: int, address: int, buffer: pa.Buffer, count: int, dtype: type[np.integer]) -> _Values:
    values = _Values(path, buffer.address - address if count else 0, count, np.dtype(dtype))
    if not 0 <= values.offset <= size - count * values.dtype.itemsize:
        raise ValueError("its values would end after the file")
    return values
