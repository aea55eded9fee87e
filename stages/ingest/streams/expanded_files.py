"""Decompressed files as streams, which can be continued at a bookmark.

- `decompressed`: decompression by the magic bytes, and by the file extension of damaged files
- `continued`: a stream from a bookmark on: from the member that it is in, or by reading up to it
- `member_at`: where reading has to begin for an offset
"""

import io
from collections.abc import Iterator
from typing import IO

from stages.ingest.streams.bookmarks import FIRST_MEMBER, Bookmark, Member
from stages.ingest.streams.byte_streams import BUFFER_BYTES, ChunkReader, RecodedReader
from stages.ingest.streams.decompression import (
    TEXT_BYTES,
    Chunks,
    DamagedFileError,
    detected_compression,
    expanded,
    is_text,
)


class _ExpandedFile(ChunkReader):
    """Decompressed content of a file."""

    def __init__(self, stream: io.BufferedReader, kind: str, first: Member = FIRST_MEMBER) -> None:
        self.stream = stream
        self.kind = kind
        self.chunks = Chunks(stream, kind, first)
        super().__init__(iter(self.chunks), first.position)


def decompressed(stream: io.BufferedReader, declared: str | None) -> IO[bytes]:
    """Decompressed bytes of a file.

    Args:
        stream: the file.
        declared: compression according to the file extension; None for no compression. The content counts more: a
            `.jsonl` that is gzip is decompressed, and a `.gz` that is text (as browsers save it) is read as it is.
    """
    kind = detected_compression(stream)
    if kind is None and declared is not None and not is_text(stream.peek(TEXT_BYTES)[:TEXT_BYTES]):
        kind = declared
    if kind is None:
        return stream
    outer = io.BufferedReader(_ExpandedFile(stream, kind))
    inner = detected_compression(outer)  # crawlers compress again what a server has compressed
    return io.BufferedReader(ChunkReader(_expanded_again(outer, inner))) if inner else outer


def _expanded_again(stream: IO[bytes], kind: str) -> Iterator[bytes]:
    """Chunks of a compressed file in a compressed file.

    Raises:
        DamagedFileError: at damage of either, as one of unknown extent: offsets in the inner file are not those in the
            outer one.
    """
    try:
        yield from expanded(stream, kind)
    except DamagedFileError as error:
        raise DamagedFileError(f"compressed twice: {error}", 0, ends_early=True) from error


def member_at(stream: IO[bytes], offset: int) -> Member:
    """The last member that begins at or before an offset of a stream; later calls have greater offsets."""
    file = getattr(stream, "raw", None)
    if isinstance(file, RecodedReader):
        return _unchanged_at(file.source, offset) if file.is_unchanged else FIRST_MEMBER
    return file.chunks.member_at(offset) if isinstance(file, _ExpandedFile) else FIRST_MEMBER


def _unchanged_at(source: IO[bytes], offset: int) -> Member:
    """The member of a stream that was not recoded; one without compression can be continued anywhere."""
    is_expanded = isinstance(getattr(source, "raw", None), _ExpandedFile)
    return member_at(source, offset) if is_expanded else Member(offset, offset)


def continued(stream: IO[bytes], start: Bookmark | None) -> IO[bytes]:
    """The stream at the offset of a bookmark, or as it is; the stream itself must not be used any more."""
    if start is None:
        return stream
    file = getattr(stream, "raw", None)
    if isinstance(file, RecodedReader) and start.member != FIRST_MEMBER:
        return continued(file.source, start)
    if (
        isinstance(file, _ExpandedFile)
        and start.member.position > stream.tell()
        and _seek(file.stream, start.member.offset)
    ):
        stream = io.BufferedReader(_ExpandedFile(file.stream, file.kind, start.member))
    go_to(stream, start.offset)
    return stream


def go_to(stream: IO[bytes], offset: int) -> None:
    """Go forward to an offset: by a seek, or by reading if the stream cannot seek (a web server may send files whole
    only)."""
    if not _seek(stream, offset):
        size = offset - stream.tell()
        assert size >= 0, "a stream is read forward only"
        while size > 0 and (data := stream.read(min(size, BUFFER_BYTES))):
            size -= len(data)


def _seek(stream: IO[bytes], offset: int) -> bool:
    try:
        return stream.seekable() and stream.seek(offset) == offset
    except (OSError, ValueError):
        return False
