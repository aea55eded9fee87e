"""The user's own text: JSON lines, Parquet and plain text behind a glob on any fsspec URL.

- `list_files`: the files that match, with what they look like from outside
- `read_file`: records one by one; what cannot be read becomes a `Reject`, never a crash
"""

import io
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from data_schemas.errors import InputDataError

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
PLAIN_TEXT = (".txt", ".md", ".rst")
ACCEPTED = ".jsonl, .json (one object a line), .parquet, .txt, .md, .rst, each but Parquet also .gz, .bz2, .xz or .zst"
BROKEN_STREAM = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, ValueError, pa.ArrowException)


@dataclass(frozen=True)
class SourceFile:
    """A file of text."""

    url: str
    path: str
    """Relative to the folder that all matches share."""
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
        if filesystem.isdir(root):
            root = f"{root.rstrip('/')}/**"
        found = {name: info for name, info in filesystem.glob(root, detail=True).items() if info["type"] == "file"}
    except (OSError, ImportError, ValueError) as error:
        raise InputDataError(f"cannot list {pattern}: {error}; give a path such as ./my_texts/**/*.jsonl.gz") from None
    names = sorted(name for name in found if _kind(name))
    if not names:
        other = f"; {len(found)} files match, none of an accepted kind" if found else ""
        raise InputDataError(
            f"no text files match {pattern}{other}. Accepted are {ACCEPTED}; for example ./my_texts/**/*.jsonl.gz"
        )
    base = _shared_folder(names)
    return [
        SourceFile(
            url=filesystem.unstrip_protocol(name),
            path=name[len(base) :],
            bytes=int(found[name]["size"] or 0),
            fingerprint=_fingerprint(found[name]),
        )
        for name in names
    ]


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
    with fsspec.open(file.url, "rb", compression=_compression(file.url)) as stream:
        if kind == "text":
            yield Record(file.path, 0, _decoded(stream.read()))
            return
        # zstandard's stream has no lines of its own.
        lines = io.BufferedReader(stream) if file.url.lower().endswith(".zst") else stream
        for position, line in enumerate(lines):
            if line.strip():
                yield _json_record(line, file.path, position, text_field)


def _json_record(line: bytes, path: str, position: int, text_field: str) -> Record | Reject:
    try:
        values = json.loads(line)
    except ValueError:
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


def _shared_folder(names: Sequence[str]) -> str:
    """The longest beginning, up to a slash, that all names share."""
    folder = names[0].rpartition("/")[0] + "/"
    while not all(name.startswith(folder) for name in names):
        folder = folder.rstrip("/").rpartition("/")[0] + "/"
    return folder
