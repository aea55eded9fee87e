"""Compressed files, member by member, with the offset of the first damage.

- `decompressed`: decompression by the file extension, checked against the magic bytes
- `expanded`: the chunks of all members (gzip), streams (bzip2, xz) or frames (zstandard) of a file
- `DamagedFileError`: the file ends early, or is damaged at an offset
"""

import bz2
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Protocol

import zstandard

from stages.ingest.byte_streams import ChunkReader, ReadInterruptedError

MAGIC = {
    "gzip": rb"\x1f\x8b\x08", "bz2": rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", "xz": rb"\xfd7zXZ\x00",
    "zstd": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
}  # fmt: skip
"""Magic bytes of compressed files, as regular expressions (RFC 1952, RFC 8878 and the formats' documentation)."""
INPUT_BYTES = 1 << 14
OUTPUT_BYTES = 1 << 20
ZSTD_INPUT_BYTES = 1 << 9
"""Compressed bytes per call: the library returns the whole output at once, up to 32,000 times as much (runs)."""
ZSTD_MAX_WINDOW = 1 << 31
"""Public dumps are compressed with `zstd --long=31`, which the library rejects by default."""
XZ_MAX_MEMORY = 1 << 29
"""Eight times the memory for files of `xz -9`; a damaged header can request 4 GiB."""


class DamagedFileError(ValueError):
    """The content of a file cannot be read from an offset on."""

    def __init__(self, message: str, offset: int, *, ends_early: bool = False) -> None:
        """Describe the damage.

        Args:
            message: what is wrong.
            offset: number of bytes of the file before the damage.
            ends_early: whether the file ends before its content does, so that the missing bytes cannot be counted.
        """
        super().__init__(message)
        self.offset = offset
        self.ends_early = ends_early


class Decoder(Protocol):
    """Decompressor of one member, with the interface of those of bz2 and lzma."""

    @property
    def eof(self) -> bool: ...  # noqa: D102
    @property
    def needs_input(self) -> bool: ...  # noqa: D102
    @property
    def unused_data(self) -> bytes: ...  # noqa: D102
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...  # noqa: D102


class _Gzip:
    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + data, max(max_length, 0))


class _Zstandard:
    needs_input = True

    def __init__(self) -> None:
        self._decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_MAX_WINDOW).decompressobj()

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._decoder.decompress(data)


DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": _Gzip, "bz2": bz2.BZ2Decompressor, "zstd": _Zstandard,
    "xz": lambda: lzma.LZMADecompressor(memlimit=XZ_MAX_MEMORY),
}  # fmt: skip


def decompressed(stream: io.BufferedReader, declared: str | None) -> IO[bytes]:
    """Decompressed bytes of a file.

    Args:
        stream: the file.
        declared: compression according to the file extension; None for no compression.

    Raises:
        ValueError: if the magic bytes are those of another compression.
    """
    detected = detected_compression(stream)
    if detected and detected != declared:
        raise ValueError(f"its content is {detected}, its name says {declared or 'not compressed'}")
    return io.BufferedReader(ChunkReader(expanded(stream, declared))) if declared else stream


def detected_compression(stream: io.BufferedReader) -> str | None:
    """Compression according to the magic bytes."""
    head = stream.peek(16)
    return next((kind for kind, magic in MAGIC.items() if re.match(magic, head)), None)


def expanded(stream: IO[bytes], kind: str) -> Iterator[bytes]:
    """Decompressed chunks of about a megabyte.

    Args:
        stream: the file; zeros after a member are padding.
        kind: a key of `MAGIC`.

    Raises:
        DamagedFileError: at the first damage, at the end of a file inside a member, and at bytes after the last member.
    """
    step = ZSTD_INPUT_BYTES if kind == "zstd" else INPUT_BYTES
    decoder: Decoder | None = None
    is_first, offset = True, 0
    while data := stream.read(step):
        while data:
            if decoder is None and not is_first and not data.strip(b"\0"):
                offset += len(data)
                break
            decoder = decoder or DECODERS[kind]()
            try:
                yield from _chunks(decoder, data)
            except ReadInterruptedError:
                raise
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
                raise DamagedFileError(f"{type(error).__name__}: {error}", offset) from error
            rest = decoder.unused_data if decoder.eof else b""
            offset += len(data) - len(rest)
            data = rest
            if decoder.eof:
                decoder, is_first = None, False
    if decoder is not None:
        raise DamagedFileError(f"the file ends inside a {kind} stream", offset, ends_early=True)


def _chunks(decoder: Decoder, data: bytes) -> Iterator[bytes]:
    yield decoder.decompress(data, OUTPUT_BYTES)
    while not decoder.eof and not decoder.needs_input:
        yield decoder.decompress(b"", OUTPUT_BYTES)
