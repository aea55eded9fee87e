"""Byte streams for the readers: in UTF-8, line by line, with bounded memory.

- `opened_filesystem`: filesystem and name of a file by its URL
- `open_source`: raw bytes; failures of disks and networks are distinguished from damaged files
- `as_utf8`: removes the byte order mark, recodes other encodings, and splits files with CR line ends at CR
- `capped_lines`: numbered lines, with None for those that are too long
"""

import codecs
import io
import lzma
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import fsspec
import pyarrow as pa
import zstandard

from data_schemas.errors import InputDataError
from data_schemas.public_urls import public_text, public_url
from stages.ingest.streams.text_encodings import recoded_lines, wide_encoding

BROKEN_STREAM = (
    OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, ValueError, OverflowError, MemoryError,
    pa.ArrowException,
)  # fmt: skip
"""Errors of libraries on damaged files; those of a disk or a network become `ReadInterruptedError`."""
_UNMARKED = {(False, True, False, True): "utf-16-le", (True, False, True, False): "utf-16-be"}
"""Zero bytes at the beginning of a file in UTF-16 without a byte order mark."""
BUFFER_BYTES = 1 << 17
READ_AHEAD_BYTES = 1 << 20
"""More than one block of bzip2 (900 kB) and the buffers around it."""


class ReadInterruptedError(Exception):
    """Reading from a disk or network failed; can be retried, so it is not a user error."""


class ByteCounter:
    """Number of bytes read and of records passed over, over several files."""

    def __init__(self) -> None:
        self._finished = 0
        self.passed_over: Counter[str] = Counter()
        """Records that are neither documents nor rejects, by kind."""
        self.current_file = 0
        """Bytes taken from the file that is being read."""

    @property
    def processed(self) -> int:
        """Bytes whose records have been processed: fewer than were taken, as every layer reads ahead."""
        return self._finished + max(0, self.current_file - READ_AHEAD_BYTES)

    def finish(self, file_bytes: int) -> None:
        """Record that a file was read to its end."""
        self._finished += file_bytes
        self.current_file = 0


class _SourceBytes(io.RawIOBase):
    """A file on any filesystem, whose read errors become `ReadInterruptedError`."""

    def __init__(self, file: Any, url: str, counter: ByteCounter) -> None:
        self._file = file
        self._url = url
        self._counter = counter

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = 0) -> int:
        self._counter.current_file = int(self._file.seek(offset, whence))
        return self._counter.current_file

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except Exception as error:  # filesystem packages raise exceptions of their own
            raise _interrupted("reading", self._url, error) from None
        buffer[: len(data)] = data
        self._counter.current_file += len(data)
        return len(data)


def opened_filesystem(url: str) -> tuple[Any, str]:
    """Filesystem and name of a file; a local name may contain `::`, which chains filesystems in other URLs."""
    if url.startswith("file://"):
        return fsspec.filesystem("file"), url.removeprefix("file://")
    filesystem, name = fsspec.core.url_to_fs(url)
    return filesystem, str(name)


@contextmanager
def open_source(url: str, counter: ByteCounter) -> Iterator[io.BufferedReader]:
    """Open a file for reading.

    Raises:
        InputDataError: if it no longer exists or is not readable.
        ReadInterruptedError: if its filesystem fails otherwise, now or while it is read.
    """
    try:
        filesystem, name = opened_filesystem(url)
        opened = filesystem.open(name, "rb")
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        problem = public_text(str(error))
        raise InputDataError(f"cannot read {public_url(url)}: {problem}; it existed when it was listed") from None
    except Exception as error:  # filesystem packages raise exceptions of their own
        raise _interrupted("opening", url, error) from None
    with opened:
        yield io.BufferedReader(_SourceBytes(opened, url, counter), BUFFER_BYTES)


def _interrupted(action: str, url: str, error: Exception) -> ReadInterruptedError:
    problem = public_text(str(error))
    return ReadInterruptedError(f"{action} {public_url(url)} failed: {type(error).__name__}: {problem}")


def as_utf8(stream: IO[bytes], *, declares_encoding: bool = False) -> IO[bytes]:
    """Stream of records without byte order mark, recoded to UTF-8 if it is in another encoding.

    Files of records begin with two ASCII characters: in UTF-16 without a mark every second byte is zero. If the first
    lines end with CR alone, LF replaces every CR.

    Args:
        stream: the file.
        declares_encoding: whether an encoding of 8 bits is left to the format's parser, as in XML.
    """
    head = stream.peek(BUFFER_BYTES)  # type: ignore[attr-defined]
    encoding = wide_encoding(head) or _UNMARKED.get(tuple(byte == 0 for byte in head[:4]))
    if head.startswith(codecs.BOM_UTF8):
        stream.read(len(codecs.BOM_UTF8))
    elif encoding or not declares_encoding:
        reader = ChunkReader(_recoded(stream, encoding)) if encoding else RecodedReader(stream)
        stream = io.BufferedReader(reader, BUFFER_BYTES)
    head = stream.peek(BUFFER_BYTES)  # type: ignore[attr-defined]
    if b"\r" in head[:-1] and b"\n" not in head:
        return io.BufferedReader(ChunkReader(_with_line_feeds(stream)), BUFFER_BYTES)
    return stream


def capped_lines(stream: IO[bytes], max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines numbered from 0; None for a line of more than `max_bytes`, which is skipped."""
    number = 0
    while line := stream.readline(max_bytes + 1):
        if len(line) <= max_bytes or line.endswith(b"\n"):
            yield number, line
        else:
            del line
            while (rest := stream.readline(BUFFER_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        number += 1


class ChunkReader(io.RawIOBase):
    """File object over chunks of bytes."""

    def __init__(self, chunks: Iterator[bytes], position: int = 0) -> None:
        """Read chunks.

        Args:
            chunks: the bytes.
            position: offset of the first of them in the file.
        """
        self._chunks = chunks
        self._position = position
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """True, always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Copy bytes of the current chunk; 0 after the last one."""
        while not self._rest and (chunk := next(self._chunks, None)) is not None:
            self._rest = memoryview(chunk)
        taken, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(taken)] = taken
        self._position += len(taken)
        return len(taken)

    def tell(self) -> int:
        """Offset in the file of the next byte."""
        return self._position


class RecodedReader(ChunkReader):
    """File of records, recoded to UTF-8 if its lines are in another encoding."""

    def __init__(self, source: IO[bytes]) -> None:
        """Read a file from its beginning."""
        self.source = source
        self.is_unchanged = False
        """Whether it is decided that each byte is that of the source."""
        super().__init__(recoded_lines(source, BUFFER_BYTES, self._decide))

    def _decide(self) -> None:
        self.is_unchanged = True


def _recoded(stream: IO[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    while data := stream.read1(BUFFER_BYTES):  # type: ignore[attr-defined]  # `read` loses bytes before damage
        yield decoder.decode(data).encode()
    yield decoder.decode(b"", final=True).encode()


def _with_line_feeds(stream: IO[bytes]) -> Iterator[bytes]:
    while data := stream.read1(BUFFER_BYTES):  # type: ignore[attr-defined]
        yield data.replace(b"\r", b"\n")
