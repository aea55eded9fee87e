"""Compressed files, member by member, with the offset of the first damage.

- `expanded`: the chunks of all members (gzip), streams (bzip2, xz) or frames (zstandard) of a file
- `Chunks`: the same, with the offsets of members
- `GzipParts`: the same after damage, from the next member of known content
- `DamagedFileError`: the file ends early, or is damaged at an offset
"""

import codecs
import lzma
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO

import zstandard

from stages.ingest.streams.bookmarks import FIRST_MEMBER, Member
from stages.ingest.streams.byte_streams import ReadInterruptedError
from stages.ingest.streams.decoders import Decoder, ZstandardDictionary, new_decoder

MAGIC = {
    "gzip": rb"\x1f\x8b\x08", "bz2": rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", "xz": rb"\xfd7zXZ\x00",
    "zstd": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
}  # fmt: skip
"""Magic bytes of compressed files, as regular expressions (RFC 1952, RFC 8878 and the formats' documentation)."""
_CONTROL = re.compile(r"[\0-\x08\x0e-\x1a\x1c\x1d\x7f]")
TEXT_BYTES = 1 << 10
"""Bytes of which all have to be text, for a file that its name says is compressed."""
INPUT_BYTES = 1 << 14
OUTPUT_BYTES = 1 << 20
ZSTD_INPUT_BYTES = 1 << 9
"""Compressed bytes per call: the library returns the whole output at once, up to 32,000 times as much (runs)."""
SMALLEST_MEMBER = 9
"""Bytes of an empty zstandard frame, the smallest of all members."""
GZIP_MAGIC = b"\x1f\x8b\x08"
PROBE_BYTES = 1 << 12
"""Compressed bytes of a member that surely expand to its first ones."""
MAX_HELD_BYTES = 1 << 22


class DamagedFileError(ValueError):
    """The content of a file cannot be read from an offset on."""

    def __init__(self, message: str, offset: int, *, ends_early: bool = False, is_after_member: bool = False) -> None:
        """Describe the damage.

        Args:
            message: what is wrong.
            offset: number of bytes of the file before the damage.
            ends_early: whether the file ends before its content does, so that the missing bytes cannot be counted.
            is_after_member: whether the file has whole members, and then bytes that begin none.
        """
        super().__init__(message)
        self.offset = offset
        self.ends_early = ends_early
        self.is_after_member = is_after_member


def detected_compression(stream: IO[bytes]) -> str | None:
    """Compression according to the magic bytes."""
    head = stream.peek(16)  # type: ignore[attr-defined]
    return next((kind for kind, magic in MAGIC.items() if re.match(magic, head)), None)


def is_text(head: bytes) -> bool:
    """Whether bytes are UTF-8 without control characters, up to a character that is cut off, or begin with a mark."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or not error.start:
            return False
        text = head[: error.start].decode()
    return bool(text) and _CONTROL.search(text) is None


def expanded(
    stream: "IO[bytes] | GzipParts",
    kind: str,
    on_member: Callable[[int, bytes], None] = lambda offset, rest: None,
    offset: int = 0,
) -> Iterator[bytes]:
    """Decompressed chunks of about a megabyte.

    What is recovered before damage depends on the bytes per call of a decoder, which are the same wherever reading
    begins.

    Args:
        stream: the file; zeros after a member are padding.
        kind: a key of `MAGIC`.
        on_member: receives the offset of the end of a member, and the bytes that were read behind it.
        offset: that of the stream's next byte in the file; members end there.

    Raises:
        DamagedFileError: at the first damage, at the end of a file inside a member, and at bytes after the last member.
    """
    step = ZSTD_INPUT_BYTES if kind == "zstd" else INPUT_BYTES
    decoder: Decoder | None = None
    library: zstandard.ZstdDecompressor | None = None
    is_first, start = offset == 0, offset
    while data := stream.read(step - offset % step):
        while data:
            if decoder is None and not is_first and not data.strip(b"\0"):
                offset += len(data)
                break
            if decoder is None:
                decoder, start = new_decoder(kind, data if is_first else b"", library), offset
            try:
                yield from _chunks(decoder, data)
            except ReadInterruptedError:
                raise
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
                is_after_member = not is_first and offset == start
                raise DamagedFileError(
                    f"{type(error).__name__}: {error}", offset, is_after_member=is_after_member
                ) from error
            rest = decoder.unused_data if decoder.eof else b""
            offset += len(data) - len(rest)
            data = rest
            if decoder.eof:
                library = decoder.library if isinstance(decoder, ZstandardDictionary) else library
                decoder, is_first = None, False
                if library is None:  # else the next member needs the dictionary before it
                    on_member(offset, data)
    if decoder is not None and not is_first and offset - start < SMALLEST_MEMBER:
        raise DamagedFileError(f"{offset - start} bytes after the last {kind} stream", start, is_after_member=True)
    if decoder is not None:
        raise DamagedFileError(f"the file ends inside a {kind} stream", offset, ends_early=True)


def _chunks(decoder: Decoder, data: bytes) -> Iterator[bytes]:
    yield decoder.decompress(data, OUTPUT_BYTES)
    while not decoder.eof and not decoder.needs_input:
        yield decoder.decompress(b"", OUTPUT_BYTES)


class Chunks:
    """Decompressed chunks of a file, which know where its members begin."""

    def __init__(
        self,
        stream: "IO[bytes] | GzipParts",
        kind: str,
        first: Member = FIRST_MEMBER,
        on_member: Callable[[bytes], None] = lambda rest: None,
    ) -> None:
        """Read a file.

        Args:
            stream: the file, at the beginning of a member.
            kind: a key of `MAGIC`.
            first: that member.
            on_member: receives the bytes that were read behind the end of a member.
        """
        self._chunks = expanded(stream, kind, self._end_member, first.offset)
        self._on_member = on_member
        self.position = first.position
        """Position of the next chunk."""
        self._members = deque([first])

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.position += len(chunk)
            yield chunk

    def member_at(self, position: int) -> Member:
        """The last member that begins at or before a position, and forget those before it."""
        while len(self._members) > 1 and self._members[1].position <= position:
            self._members.popleft()
        return self._members[0]

    def _end_member(self, offset: int, rest: bytes) -> None:
        self._members.append(Member(offset, self.position))
        self._on_member(rest)


class GzipParts:
    """A gzip file of many members, which is read on after damage."""

    def __init__(self, stream: IO[bytes], first_bytes: bytes, offset: int = 0) -> None:
        """Start at the beginning of a file, or of a member.

        Args:
            stream: the file.
            first_bytes: expanded bytes with which a member begins, so that reading continues there.
            offset: that of the stream's next byte in the file.
        """
        self._stream = stream
        self._offset = offset
        """Offset of the next byte to `read`."""
        self._first_bytes = first_bytes
        self._held = bytearray()
        """Compressed bytes since the beginning of the current member: damage may be noticed long after it."""
        self._pending = b""

    def chunks(self, position: int = 0) -> Chunks:
        """Expanded chunks up to the next damage, of which the first is at a `position`; iteration raises
        `DamagedFileError` there."""
        return Chunks(self, "gzip", Member(self._offset, position), self._begin_member)

    def read(self, size: int) -> bytes:
        """Compressed bytes."""
        data, self._pending = self._pending[:size], self._pending[size:]
        if len(data) < size:
            data += self._stream.read(size - len(data))
        self._offset += len(data)
        self._held += data
        del self._held[: max(0, len(self._held) - MAX_HELD_BYTES)]
        return data

    def skip_damage(self) -> int | None:
        """Skip to the next member with the known beginning; returns the bytes skipped, None if there is no such one."""
        data = self._held + self._pending
        self._offset -= len(self._held)
        skipped, start, is_end = 0, 1, False
        while True:
            while (start := data.find(GZIP_MAGIC, start)) >= 0 and (is_end or len(data) - start >= PROBE_BYTES):
                if self._begins(bytes(data[start : start + PROBE_BYTES])):
                    self._held, self._pending = bytearray(), bytes(data[start:])
                    self._offset += skipped + start
                    return skipped + start
                start += 1
            if is_end:
                return None
            passed = start if start >= 0 else max(len(data) - len(GZIP_MAGIC) + 1, 0)
            del data[:passed]
            skipped, start = skipped + passed, 0 if passed else 1
            more = self._stream.read(OUTPUT_BYTES)
            is_end = not more
            data += more

    def _begin_member(self, rest: bytes) -> None:
        self._held = bytearray(rest)

    def _begins(self, data: bytes) -> bool:
        try:
            return zlib.decompressobj(31).decompress(data, len(self._first_bytes)) == self._first_bytes
        except zlib.error:
            return False
