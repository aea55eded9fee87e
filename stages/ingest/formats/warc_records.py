"""Records of a WARC file (ISO 28500:2017), each of which stands alone.

- `WarcFile`: records in file order; what cannot be read is a `DamagedRecord`, and reading continues after it

Common Crawl compresses each record as a gzip member; other crawlers write the file as one member, without compression,
or with LF as line ends. After damage, reading continues at the next line `WARC/1.0`, in the next member if need be.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from stages.ingest.streams.bookmarks import FIRST_MEMBER, Bookmark
from stages.ingest.streams.decompression import Chunks, DamagedFileError, GzipParts, detected_compression
from stages.ingest.streams.expanded_files import go_to

MAX_HEAD_BYTES = 1 << 20
LISTS = ("transfer-encoding", "content-encoding")
"""Headers whose lines are parts of one list (RFC 9110, 5.3); a line that servers repeat counts once."""
ENDS_EARLY = "unreadable_from_here"
READ_BYTES = 1 << 17
_RECORD_START = re.compile(rb"^WARC/\d\.\d{1,2}[ \t]{0,40}\r?$", re.M)
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LINE_BREAK = re.compile(rb"\r?\n(?![ \t])")
_BODY_END = re.compile(rb"\r?\n\r?\n|\r?\n?WARC/\d|\s*\Z")
_CONTENT = re.compile(rb"[^\r\n \t\0]")
_TYPES = frozenset(("continuation", "metadata", "request", "resource", "revisit", "warcinfo"))
"""Types of records that have no page or text (ISO 28500:2017, 6)."""
_LONGEST_START = 64
"""More bytes than `_RECORD_START` matches; a start may lie across two chunks."""


@dataclass(frozen=True)
class WarcRecord:
    """One record."""

    headers: Mapping[str, str]
    """By names in lower case; the first of several."""
    body: bytes


@dataclass(frozen=True)
class DamagedRecord:
    """Bytes that are no complete record."""

    reason: str
    detail: str
    url: str | None = None
    lost_bytes: int = 0
    """Bytes of the compressed file that were not read."""


class WarcFile:
    """Records of a file, and damage; a class, since bookmarks need to know where the last record ended."""

    def __init__(self, stream: IO[bytes], start: Bookmark | None = None) -> None:
        """Open a file.

        Args:
            stream: the raw file; compression is detected by its magic bytes.
            start: where to begin.
        """
        self._stream = stream
        self._kind = detected_compression(stream)
        self._start = start
        self._chunks: Chunks | None = None
        self._buffer: _Buffer | None = None

    def records(
        self, max_bytes: int, wanted: frozenset[str], passed_over: Counter[str]
    ) -> Iterator[WarcRecord | DamagedRecord]:
        """Records of the wanted types, and damage; other records are counted.

        Args:
            max_bytes: longer bodies are not kept, and are damage with the reason `too_long`.
            wanted: values of `WARC-Type`.
            passed_over: counts the records of other types.

        Raises:
            DamagedFileError: at the damage of a compressed file after which no member begins a record.
        """
        if self._kind is None:
            yield from _records(self._plain_buffer(), max_bytes, wanted, passed_over)
            return
        member = self._start.member if self._start else FIRST_MEMBER
        go_to(self._stream, member.offset)
        parts = GzipParts(self._stream, b"WARC/", member.offset) if self._kind == "gzip" else None
        buffer = self._next_buffer(parts.chunks(member.position) if parts else Chunks(self._stream, self._kind, member))
        if self._start:
            buffer.skip(self._start.offset - member.position)
        while True:
            yield from _records(buffer, max_bytes, wanted, passed_over)
            if buffer.damage is None:
                return
            lost = parts.skip_damage() if parts else None
            if lost is None or parts is None:
                raise buffer.damage
            damaged, buffer = buffer, self._next_buffer(parts.chunks())
            yield DamagedRecord("unreadable_record", str(damaged.damage), damaged.url, lost)

    @property
    def offset(self) -> int:
        """Offset of what follows the last record, in the decompressed content since the last damage."""
        return self._buffer.offset if self._buffer else 0

    def bookmark(self, position: int) -> Bookmark:
        """A bookmark for what follows the last record."""
        member = self._chunks.member_at(self.offset) if self._chunks else FIRST_MEMBER
        return Bookmark(position, self.offset, member)

    def _plain_buffer(self) -> "_Buffer":
        offset = self._start.offset if self._start else 0
        begin = offset - offset % READ_BYTES
        go_to(self._stream, begin)
        self._buffer = _Buffer(iter(lambda: self._stream.read(READ_BYTES), b""), begin)
        self._buffer.skip(offset - begin)
        return self._buffer

    def _next_buffer(self, chunks: Chunks) -> "_Buffer":
        self._chunks = chunks
        self._buffer = _Buffer(iter(chunks), chunks.position)
        return self._buffer


def _records(
    buffer: "_Buffer", max_bytes: int, wanted: frozenset[str], passed_over: Counter[str]
) -> Iterator[WarcRecord | DamagedRecord]:
    while buffer.skip_blank():
        if not buffer.starts_record():
            skipped = buffer.skip_to_record()
            yield DamagedRecord("unreadable_record", f"{skipped:,} bytes that begin no record")
            continue
        headers = buffer.take_head()
        length = headers.get("content-length", "") if headers is not None else ""
        if headers is None or not (length.isascii() and length.isdigit()):
            problem = "a header without an end" if headers is None else f"the Content-Length {length[:20]!r}"
            if headers is None or (buffer.skip_blank() and not buffer.starts_record()):
                buffer.skip_to_record()
            if buffer.damage is None:
                yield DamagedRecord("unreadable_record", problem, buffer.url)
                buffer.url = None  # as if reading began here
            continue
        size = int(length[:18])
        body = buffer.take_body(size) if size <= max_bytes + MAX_HEAD_BYTES else None
        if body is not None and len(body) < size and buffer.damage:
            return
        damage = buffer.skip_body(size) if body is None else buffer.problem_after(body, size)
        if damage:
            yield DamagedRecord(ENDS_EARLY if "the file ends" in damage else "unreadable_record", damage, buffer.url)
        elif (kind := headers.get("warc-type", "").lower()) not in wanted:
            passed_over[f"{kind if kind in _TYPES else 'other'}_records"] += 1
        else:
            if body is None:
                yield DamagedRecord("too_long", f"a record of {size:,} bytes", buffer.url)
            else:
                yield WarcRecord(headers, body)
        buffer.url = None


class _Buffer:
    """Bytes of a part of the file, of which no more than a body is kept."""

    def __init__(self, chunks: Iterator[bytes], offset: int) -> None:
        self._chunks = chunks
        self._data = bytearray()
        self._end = offset
        self._is_last = False
        self.damage: DamagedFileError | None = None
        """Why there are no more chunks."""
        self.url: str | None = None
        """Address of the record that is being read."""

    @property
    def offset(self) -> int:
        """Offset of the next byte."""
        return self._end - len(self._data)

    def skip(self, size: int) -> None:
        """Skip bytes without keeping them."""
        while size > len(self._data):
            size -= len(self._data)
            self._data.clear()
            if not self._fill():
                return
        del self._data[:size]

    def skip_blank(self) -> bool:
        """Skip line ends and spaces; False at the end."""
        while (content := _CONTENT.search(self._data)) is None:
            self._data.clear()
            if not self._fill():
                return False
        del self._data[: content.start()]
        return True

    def starts_record(self) -> bool:
        """Whether the next line begins a record."""
        self._want(_LONGEST_START)
        return _RECORD_START.match(self._data) is not None

    def skip_to_record(self) -> int:
        """Skip to the next line that begins a record, at least one byte; returns the number of bytes skipped."""
        skipped = 0
        while True:
            match = _RECORD_START.search(self._data, 1)  # the byte before it is that of the line end
            if match and (match.end() < len(self._data) or self._is_last):
                del self._data[: match.start()]
                return skipped + match.start()
            keep = max(0, len(self._data) - _LONGEST_START)
            del self._data[:keep]
            skipped += keep
            if not self._fill():
                skipped += len(self._data)
                self._data.clear()
                return skipped

    def take_head(self) -> dict[str, str] | None:
        """Headers of the record; None if they do not end within `MAX_HEAD_BYTES`."""
        searched = 0
        while (end := _HEAD_END.search(self._data, searched)) is None:
            searched = max(0, len(self._data) - 4)
            if len(self._data) > MAX_HEAD_BYTES or not self._fill():
                return None
        if _RECORD_START.search(self._data, 1, end.start()):
            return None
        headers = parse_headers(bytes(self._data[: end.start()]))
        self.url = headers.get("warc-target-uri", "").strip("<>") or None
        del self._data[: end.end()]
        return headers

    def take_body(self, size: int) -> bytes:
        """Body of the record, or all bytes that are left."""
        self._want(size)
        body = bytes(self._data[:size])
        del self._data[:size]
        return body

    def problem_after(self, body: bytes, size: int) -> str | None:
        """The fault of the length of a body; if it reached into the next record, that is put back."""
        self._want(_LONGEST_START)
        if len(body) == size and (not self._data or _BODY_END.match(self._data)):
            return None
        if start := _RECORD_START.search(body):
            self._data = bytearray(body[start.start() :]) + self._data
            return f"its Content-Length {size:,} reaches into the next record"
        if len(body) < size:
            return f"the file ends after {len(body):,} of its {size:,} bytes"
        self.skip_to_record()
        return f"more bytes than its Content-Length {size:,}"

    def skip_body(self, size: int) -> str | None:
        """Skip a body without keeping it; the problem with its length, if any."""
        skipped = 0
        while True:
            start = _RECORD_START.search(self._data, 1, max(size - skipped, 1))
            if start and start.end() < len(self._data):
                del self._data[: start.start()]
                return f"its Content-Length {size:,} reaches into the next record"
            if size - skipped <= len(self._data):
                del self._data[: size - skipped]
                return None
            passed = max(0, len(self._data) - _LONGEST_START)
            del self._data[:passed]
            skipped += passed
            if not self._fill():
                return f"the file ends after {skipped + len(self._data):,} of its {size:,} bytes"

    def _want(self, size: int) -> None:
        while len(self._data) < size and self._fill():
            pass

    def _fill(self) -> bool:
        while not self._is_last:
            try:
                chunk = next(self._chunks, None)
            except DamagedFileError as error:
                chunk, self.damage = None, error
            if chunk is None:
                self._is_last = True
            elif chunk:
                self._data += chunk
                self._end += len(chunk)
                return True
        return False


def parse_headers(head: bytes) -> dict[str, str]:
    """Headers by names in lower case, the first of several, but all codings; lines without a colon are skipped."""
    headers: dict[str, str] = {}
    for line in _LINE_BREAK.split(head)[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            text = " ".join(value.decode("utf-8", "replace").split())
            key = name.strip().lower().decode("latin-1")
            is_next = key in LISTS and key in headers and headers[key].lower() != text.lower()
            headers[key] = f"{headers[key]}, {text}" if is_next else headers.get(key, text)
    return headers
