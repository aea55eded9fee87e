"""The user's own text: JSON lines, Parquet and plain text behind a glob on any fsspec URL.

- `list_files`: the files that match, with what they look like from outside
- `read_file`: records one by one; what cannot be read becomes a `Reject`, never a crash
"""

import bz2
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from data_schemas.errors import InputDataError

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
MAGIC = {"gzip": rb"\x1f\x8b\x08", "bz2": rb"BZh[1-9]1AY&SY", "xz": rb"\xfd7zXZ\x00", "zstd": rb"\x28\xb5\x2f\xfd"}
"""How a compressed file begins, as regular expressions (RFC 1952, RFC 8878 and the formats' own pages)."""
ZSTD_CHUNK_BYTES = 1 << 14
ZSTD_LARGEST_WINDOW = 1 << 31
"""Public dumps are written with `zstd --long=31`, which the library refuses unless told."""
PLAIN_TEXT = (".txt", ".md", ".rst")
ACCEPTED = ".jsonl, .json (one object a line), .parquet, .txt, .md, .rst, each but Parquet also .gz, .bz2, .xz or .zst"
BROKEN_STREAM = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, ValueError, pa.ArrowException)


@dataclass(frozen=True)
class SourceFile:
    """A file of text."""

    url: str
    path: str
    """Relative to the folder above the pattern's first wildcard, so that later files do not rename earlier ones."""
    bytes: int
    fingerprint: str
    """Modification time, ETag or whatever else the filesystem tells of the content."""


@dataclass(frozen=True)
class Record:
    """One document of a file."""

    path: str
    position: int
    text: str
    id: str | None = None
    url: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Reject:
    """A record, or the rest of a file, that cannot be read."""

    path: str
    position: int
    reason: str


def list_files(pattern: str) -> list[SourceFile]:
    """Files that match a glob, sorted by path.

    Raises:
        InputDataError: where nothing matches, or nothing of an accepted kind.
    """
    try:
        filesystem, root = fsspec.core.url_to_fs(pattern)
        base, matches = _matches(filesystem, root)
    except (OSError, ImportError, ValueError) as error:
        raise InputDataError(f"cannot list {pattern}: {error}; give a path such as ./my_texts/**/*.jsonl.gz") from None
    found = {name: info for name, info in matches.items() if info["type"] == "file"}
    names = sorted(name for name in found if _kind(name))
    if not names:
        other = f"; {len(found)} files match, none of an accepted kind" if found else ""
        raise InputDataError(
            f"no text files match {pattern}{other}. Accepted are {ACCEPTED}; for example ./my_texts/**/*.jsonl.gz"
        )
    return [
        SourceFile(
            url=filesystem.unstrip_protocol(name),
            path=name.removeprefix(base),
            bytes=int(found[name]["size"] or 0),
            fingerprint=_fingerprint(found[name]),
        )
        for name in names
    ]


def _matches(filesystem: Any, root: str) -> tuple[str, dict[str, Any]]:
    """The folder that paths are relative to, and what a folder holds, a file is or a glob matches."""
    if filesystem.isdir(root):
        return root.rstrip("/") + "/", filesystem.find(root, detail=True)
    if filesystem.isfile(root):  # Its name may hold a bracket, which a glob would take for a wildcard.
        return root[: root.rfind("/") + 1], {root: filesystem.info(root)}
    before_wildcard = re.split(r"[*?\[]", root, maxsplit=1)[0]
    return before_wildcard[: before_wildcard.rfind("/") + 1], filesystem.glob(root, detail=True)


def read_file(file: SourceFile, text_field: str) -> Iterator[Record | Reject]:
    """Records in the file's order.

    Args:
        file: from `list_files`.
        text_field: the field or column that holds the text; `id`, `url` and `license` are taken where they are text.
    """
    position = 0
    try:
        for found in _records(file, text_field):
            yield found
            position = found.position + 1
    except BROKEN_STREAM as error:
        yield Reject(file.path, position, f"unreadable from here on: {type(error).__name__}: {error}"[:200])


def _records(file: SourceFile, text_field: str) -> Iterator[Record | Reject]:
    kind = _kind(file.url)
    if kind == "parquet":
        yield from _parquet_records(file, text_field)
        return
    with fsspec.open(file.url, "rb") as raw:
        stream = _decompressed(io.BufferedReader(raw), _compression(file.url))
        if kind == "text":
            yield Record(file.path, 0, _decoded(stream.read()))
            return
        for position, line in enumerate(stream):
            if line.strip():
                yield _json_record(line, file.path, position, text_field)


def _json_record(line: bytes, path: str, position: int, text_field: str) -> Record | Reject:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return Reject(path, position, "not JSON")
    if not isinstance(values, dict):
        return Reject(path, position, f"not an object: a JSON {type(values).__name__}")
    return _record(values, path, position, text_field)


def _record(values: dict[str, Any], path: str, position: int, text_field: str) -> Record | Reject:
    text = values.get(text_field)
    if not isinstance(text, str):
        return Reject(path, position, f"no text: field {text_field!r} is {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        return Reject(path, position, "not Unicode: a lone surrogate")
    more = {name: value if isinstance(value := values.get(key), str) else None for name, key in _OPTIONAL.items()}
    return Record(path, position, text, **more)


_OPTIONAL = {"id": "id", "url": "url", "licence": "license"}


def _parquet_records(file: SourceFile, text_field: str) -> Iterator[Record | Reject]:
    with fsspec.open(file.url, "rb") as stream:
        table = pq.ParquetFile(stream)
        wanted = [name for name in (text_field, *_OPTIONAL.values()) if name in table.schema_arrow.names]
        position = 0
        for batch in table.iter_batches(batch_size=1_000, columns=wanted):
            for values in batch.to_pylist():
                yield _record(values, file.path, position, text_field)
                position += 1


def _decompressed(stream: io.BufferedReader, declared: str | None) -> IO[bytes]:
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
    return io.BufferedReader(_ZstdReader(stream)) if declared == "zstd" else stream


class _ZstdReader(io.RawIOBase):
    """All frames of a zstandard stream; the library's own reader ends silently where a file was cut off."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._chunks = _zstd_chunks(stream)
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left and (chunk := next(self._chunks, None)) is not None:
            self._left = chunk
        taken, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


def _zstd_chunks(stream: io.BufferedReader) -> Iterator[bytes]:
    decoder = None
    while data := stream.read(ZSTD_CHUNK_BYTES):
        while data:
            decoder = decoder or zstandard.ZstdDecompressor(max_window_size=ZSTD_LARGEST_WINDOW).decompressobj()
            yield decoder.decompress(data)
            data = decoder.unused_data
            decoder = None if decoder.eof else decoder
    if decoder is not None:
        raise EOFError("the file ends inside a zstandard frame")


def _decoded(data: bytes) -> str:
    """UTF-8, with or without a mark; what is not UTF-8 is read as Latin-1, which cleaning can repair."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _kind(name: str) -> str | None:
    bare = name.lower()
    if bare.endswith(".parquet"):
        return "parquet"
    for ending in COMPRESSIONS:
        bare = bare.removesuffix(ending)
    if bare.endswith((".jsonl", ".json", ".ndjson")):
        return "json"
    return "text" if bare.endswith(PLAIN_TEXT) else None


def _compression(name: str) -> str | None:
    return next((kind for ending, kind in COMPRESSIONS.items() if name.lower().endswith(ending)), None)


def _fingerprint(info: dict[str, Any]) -> str:
    for name in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created"):
        if info.get(name):
            return str(info[name])
    return ""
