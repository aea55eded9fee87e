"""Decompressors of one member each: a gzip member, a bzip2 or xz stream, a zstandard frame.

- `Decoder`: their interface
- `new_decoder`: the decoder of the next member of a file
- `ZstandardDictionary`: the frame with the dictionary of a `.warc.zst`
"""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

import zstandard

ZSTD_MAX_WINDOW = 1 << 31
"""Public dumps are compressed with `zstd --long=31`, which the library rejects by default."""
ZSTD_MAGIC, ZSTD_DICTIONARY_MAGIC = b"\x28\xb5\x2f\xfd", b"\x37\xa4\x30\xec"
ZSTD_DICTIONARY_FRAME = b"\x5d\x2a\x4d\x18"
MAX_DICTIONARY_BYTES = 1 << 26
"""The Internet Archive's have a megabyte."""
XZ_MAX_MEMORY = 1 << 29
"""Eight times the memory for files of `xz -9`; a damaged header can request 4 GiB."""


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

    def __init__(self, library: zstandard.ZstdDecompressor | None = None) -> None:
        self._decoder = (library or _zstandard_library(None)).decompressobj()

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        try:
            return self._decoder.decompress(data)
        except zstandard.ZstdError as error:
            if "Dictionary" not in str(error):
                raise
            raise ValueError(
                f"{error}: a file compressed with a dictionary must begin with it, in a skippable frame 0x184D2A5D"
            ) from None


class ZstandardDictionary:
    """The skippable frame that begins a `.warc.zst` with the dictionary of its other frames, as it is or compressed
    (IIPC, Use of Zstandard in WARC files, 1.0)."""

    needs_input = True

    def __init__(self) -> None:
        self._data = bytearray()
        self.eof = False
        self.unused_data = b""
        self.library: zstandard.ZstdDecompressor | None = None
        """Decompressor with the dictionary, after the end; None if the frame has another content."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Collect the frame; it has no output.

        Raises:
            ValueError: if the frame is too large.
        """
        self._data += data
        size = 8 + int.from_bytes(self._data[4:8], "little")
        if len(self._data) >= 8 and size > MAX_DICTIONARY_BYTES:
            raise ValueError(f"a dictionary of {size:,} bytes, more than {MAX_DICTIONARY_BYTES:,}")
        if len(self._data) >= max(size, 8):
            self.eof, self.unused_data = True, bytes(self._data[size:])
            content = bytes(self._data[8:size])
            if content.startswith(ZSTD_MAGIC):
                content = zstandard.ZstdDecompressor().decompress(content, max_output_size=MAX_DICTIONARY_BYTES)
            if content.startswith(ZSTD_DICTIONARY_MAGIC):
                self.library = _zstandard_library(zstandard.ZstdCompressionDict(content))
        return b""


def _zstandard_library(dictionary: zstandard.ZstdCompressionDict | None) -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=ZSTD_MAX_WINDOW)


DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": _Gzip, "bz2": bz2.BZ2Decompressor, "zstd": _Zstandard,
    "xz": lambda: lzma.LZMADecompressor(memlimit=XZ_MAX_MEMORY),
}  # fmt: skip


def new_decoder(kind: str, beginning: bytes, library: zstandard.ZstdDecompressor | None) -> Decoder:
    """Decoder of the next member.

    Args:
        kind: a key of `DECODERS`.
        beginning: first bytes of the file, if the member is its first; else empty.
        library: decompressor with the dictionary of a file that has one.
    """
    if kind == "zstd" and beginning.startswith(ZSTD_DICTIONARY_FRAME):
        return ZstandardDictionary()
    return _Zstandard(library) if library else DECODERS[kind]()
