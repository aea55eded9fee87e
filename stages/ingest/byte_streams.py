"""Bytes of a file as its readers want them: decompressed, in UTF-8, line by line, never more than a cap in memory.

- `open_source`: the raw bytes; failing disks and networks are told apart from damaged files
- `decompressed`: under the compression that the name declares, and a check that it is the true one
- `as_utf8`: without a byte order mark; UTF-16 and UTF-32 recoded on the way
- `capped_lines`: numbered lines, with None for those that are too long
"""

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import fsspec
import pyarrow as pa
import zstandard

from data_schemas.errors import InputDataError

MAGIC = {"gzip": rb"\x1f\x8b\x08", "bz2": rb"BZh[1-9]1AY&SY", "xz": rb"\xfd7zXZ\x00", "zstd": rb"\x28\xb5\x2f\xfd"}
"""How a compressed file begins, as regular expressions (RFC 1952, RFC 8878 and the formats' own pages)."""
ZSTD_CHUNK_BYTES = 1 << 9
"""The library gives all that a chunk holds at once: up to 32,000 times as much (runs of one byte)."""
ZSTD_LARGEST_WINDOW = 1 << 31
"""Public dumps are written with `zstd --long=31`, which the library refuses unless told."""
BROKEN_STREAM = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, ValueError, pa.ArrowException)
"""What libraries raise for a damaged file; what a disk or a network raises is a `ReadInterruptedError`."""
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""The longer first: UTF-16's is the beginning of UTF-32's."""
BUFFER_BYTES = 1 << 17
READ_AHEAD_BYTES = 1 << 20
"""More than one block of bzip2 (900 kB) and the buffers around it."""


class ReadInterruptedError(Exception):
    """The place that a file is read from failed half-way; worth a retry, so no error of the user's."""


class ByteCounter:
    """How far reading has come, over several files."""

    def __init__(self) -> None:
        self._finished = 0
        self.of_file = 0
        """Bytes taken from the file that is being read."""

    @property
    def surely_used(self) -> int:
        """Bytes whose records have been seen: less than were taken, as every layer reads ahead."""
        return self._finished + max(0, self.of_file - READ_AHEAD_BYTES)

    def finish(self, file_bytes: int) -> None:
        """A file was read to its end."""
        self._finished += file_bytes
        self.of_file = 0


class _SourceBytes(io.RawIOBase):
    """A file on some filesystem, whose failures cannot be taken for damage in the file."""

    def __init__(self, file: Any, url: str, counter: ByteCounter) -> None:
        self._file = file
        self._url = url
        self._counter = counter

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except Exception as error:  # every filesystem package has exceptions of its own
            raise ReadInterruptedError(f"reading {self._url} failed: {type(error).__name__}: {error}") from error
        buffer[: len(data)] = data
        self._counter.of_file += len(data)
        return len(data)


@contextmanager
def open_source(url: str, counter: ByteCounter) -> Iterator[io.BufferedReader]:
    """Open a file for reading.

    Raises:
        InputDataError: where it is gone or may not be read.
        ReadInterruptedError: where its filesystem fails otherwise, now or while it is read.
    """
    try:
        filesystem, name = fsspec.core.url_to_fs(url)
        opened = filesystem.open(name, "rb")
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputDataError(f"cannot read {url}: {error}; it was there when the files were listed") from error
    except Exception as error:  # every filesystem package has exceptions of its own
        raise ReadInterruptedError(f"opening {url} failed: {type(error).__name__}: {error}") from error
    with opened:
        yield io.BufferedReader(_SourceBytes(opened, url, counter), BUFFER_BYTES)


def decompressed(stream: io.BufferedReader, declared: str | None) -> IO[bytes]:
    """Bytes of a file under the compression its name declares.

    Raises:
        ValueError: where the first bytes are those of another compression.
    """
    head = stream.peek(16)
    found = next((kind for kind, begins in MAGIC.items() if re.match(begins, head)), None)
    if found and found != declared:
        raise ValueError(f"its content is {found}, its name says {declared or 'not compressed'}")
    if declared == "gzip":
        return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]
    if declared == "bz2":
        return bz2.BZ2File(stream)
    if declared == "xz":
        return lzma.LZMAFile(stream)
    return io.BufferedReader(_Chunks(_zstd_chunks(stream))) if declared == "zstd" else stream


def as_utf8(stream: IO[bytes]) -> IO[bytes]:
    """The stream without its byte order mark, recoded where the mark says UTF-16 or UTF-32."""
    head = stream.peek(4)[:4]  # type: ignore[attr-defined]
    mark, encoding = next((pair for pair in BYTE_ORDER_MARKS if head.startswith(pair[0])), (b"", "utf-8"))
    if encoding != "utf-8":
        return io.BufferedReader(_Chunks(_recoded(stream, encoding)))
    stream.read(len(mark))
    return stream


def capped_lines(stream: IO[bytes], max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their numbers from 0; None for a line of more than `max_bytes`, which is read past."""
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


class _Chunks(io.RawIOBase):
    """Chunks of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left and (chunk := next(self._chunks, None)) is not None:
            self._left = memoryview(chunk)
        taken, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


def _zstd_chunks(stream: io.BufferedReader) -> Iterator[bytes]:
    """All frames of a zstandard stream; the library's own reader ends silently where a file was cut off."""
    decoder = None
    while data := stream.read(ZSTD_CHUNK_BYTES):
        while data:
            decoder = decoder or zstandard.ZstdDecompressor(max_window_size=ZSTD_LARGEST_WINDOW).decompressobj()
            yield decoder.decompress(data)
            data = decoder.unused_data
            decoder = None if decoder.eof else decoder
    if decoder is not None:
        raise EOFError("the file ends inside a zstandard frame")


def _recoded(stream: IO[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    while data := stream.read(BUFFER_BYTES):
        yield decoder.decode(data).encode()
    yield decoder.decode(b"", final=True).encode()
