"""Items of benchmark files in any layout.

- `list_benchmarks`: files that the configured globs match, and a digest of their names, sizes and times
- `read_items`: id and texts of each item

A row or an object is an item, and each text in it a field, in NFC as the corpus is. In nested JSON, the outermost
object with an id of its own is an item, and the texts of the enclosing objects are fields of it too: a question of
SQuAD includes its paragraph.
"""

import csv
import gzip
import hashlib
import io
import json
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from xml.etree import ElementTree

import fsspec

from data_schemas.errors import InputDataError
from data_schemas.public_urls import public_text, public_url
from stages.common.passed_over import NeverInput

ID_FIELDS = ("id", "uid", "qid", "task_id", "idx", "index", "pairid")
"""Case-insensitive names of fields that identify an item; the first that a row has is used."""
ENDINGS = (".tsv", ".csv", ".jsonl", ".json", ".xml")
_WILDCARD = re.compile(r"[*?\[]")
_NARROWER = "remove the file, or use a narrower glob"


@dataclass(frozen=True)
class BenchmarkFile:
    """A file of a benchmark; picklable."""

    name: str
    """Prefix of the glob as configured, then what its wildcards matched."""
    url: str
    state: str
    """Size, and modification time or ETag."""


@dataclass(frozen=True)
class Item:
    """An item of a benchmark."""

    id: str
    """The item's own id if ids are unique in the file, else its row from 0, or its path in the JSON value."""
    fields: tuple[str, ...]
    """Its texts; an n-gram never spans two of them."""


class _ParsedItem(NamedTuple):
    path: str
    own_id: str | None
    fields: tuple[str, ...]


class BenchmarkListing(NamedTuple):
    """The state of all benchmarks at one time: what is keyed and read."""

    files: list[BenchmarkFile]
    """Distinct files, sorted by name."""
    fingerprints: dict[str, str]
    """Public glob -> digest of the names, sizes and times of its files."""


def list_benchmarks(globs: Sequence[str], store: str = "") -> BenchmarkListing:
    """Files that the globs match, listed once.

    Args:
        globs: as configured.
        store: URL of the artifact store, whose files are no benchmarks.

    Raises:
        InputDataError: if a glob matches nothing, an empty file, or a file of another format.
    """
    files: dict[str, BenchmarkFile] = {}
    fingerprints: dict[str, str] = {}
    for pattern in globs:
        matches = _matches(pattern, store)
        rows = sorted(f"{file.name} {file.state}" for file in matches)
        fingerprints[public_url(pattern)] = hashlib.sha256("\n".join(rows).encode()).hexdigest()
        for file in matches:
            files.setdefault(file.url, file)
    return BenchmarkListing(sorted(files.values(), key=lambda file: file.name), fingerprints)


def read_items(file: BenchmarkFile) -> list[Item]:
    """Items in file order.

    Raises:
        InputDataError: if the content does not match the file's extension, or it has no item; names the file and the
            position.
    """
    try:
        with fsspec.open(file.url, "rb") as stream:
            data: bytes = stream.read()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        parsed = list(_READERS[_ending(file.url)](data))
    except (OSError, EOFError, zlib.error, ValueError, RecursionError, csv.Error, ElementTree.ParseError) as error:
        raise InputDataError(
            f"dedup.decontaminate.benchmarks: the file {file.name} cannot be read: {public_text(str(error))}; accepted "
            f"are {', '.join(ENDINGS)} in UTF-8 (.xml as it declares), each also .gz"
        ) from None
    if not parsed:
        raise InputDataError(f"dedup.decontaminate.benchmarks: the file {file.name} has no item; {_NARROWER}")
    own_ids = {item.own_id for item in parsed}
    unique = None not in own_ids and len(own_ids) == len(parsed)
    return [Item((item.own_id or "") if unique else item.path, tuple(map(_text, item.fields))) for item in parsed]


def _text(field: str) -> str:
    """A field as `clean` leaves the same text: in NFC, and without lone surrogates, which JSON can have."""
    return unicodedata.normalize("NFC", field.encode("utf-8", "replace").decode())


def _matches(pattern: str, store: str) -> list[BenchmarkFile]:
    shown = public_url(pattern)
    try:
        filesystem, root = fsspec.core.url_to_fs(pattern)
        if filesystem.isfile(root):
            infos = {root: filesystem.info(root)}
        else:
            rules = NeverInput(filesystem, root, _WILDCARD.split(root)[0].rpartition("/")[0] + "/", store)
            infos = filesystem.glob(root, detail=True)
            infos = {path: info for path, info in infos.items() if rules.reason(path, info) is None}
    except (OSError, ImportError, ValueError) as error:
        problem = public_text(str(error))
        raise InputDataError(f"cannot list dedup.decontaminate.benchmarks {shown!r}: {problem}") from None
    prefix, full = (shown, root) if root in infos else (_WILDCARD.split(path)[0] for path in (shown, root))
    files = []
    for path, info in sorted(infos.items()):
        if _ending(path) not in ENDINGS:
            raise InputDataError(
                f"dedup.decontaminate.benchmarks {shown!r} matches {public_url(path)}, which is not a benchmark "
                f"file; accepted are {', '.join(ENDINGS)}, each also .gz; use a narrower glob"
            )
        if info["size"] == 0:
            raise InputDataError(
                f"dedup.decontaminate.benchmarks {shown!r} matches {public_url(path)}, which is empty; {_NARROWER}"
            )
        stamp = next((str(info[key]) for key in ("ETag", "etag", "md5Hash", "mtime", "created") if info.get(key)), "")
        name = prefix + path.removeprefix(full)
        files.append(BenchmarkFile(name, filesystem.unstrip_protocol(path), f"{info['size']} {stamp}"))
    if not files:
        raise InputDataError(f"dedup.decontaminate.benchmarks {shown!r} matches no file; correct the glob or remove it")
    return files


def _ending(path: str) -> str:
    bare = path.lower().removesuffix(".gz")
    return bare[bare.rfind(".") :]


def _tsv(data: bytes) -> Iterator[_ParsedItem]:
    """Rows without quoting, as in GLUE: every tab ends a field."""
    return _rows([line.split("\t") for line in _lines(data) if line])


def _lines(data: bytes) -> list[str]:
    """Lines that end in LF, CR LF or CR; U+2028 and its like are text."""
    return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _csv(data: bytes) -> Iterator[_ParsedItem]:
    """Rows as in RFC 4180; U+2028 and its like are text.

    Raises:
        ValueError: if a quote opens that does not close, which would make one item of all rows behind it.
    """
    text = data.decode("utf-8-sig")
    limit = csv.field_size_limit(max(len(text), 1))  # for the whole process; by default 131,072 characters
    try:
        return _rows(list(csv.reader(io.StringIO(text, newline=""), strict=True)))
    except csv.Error as error:  # a quote inside a field is text; one that never closes is an error
        if "unexpected end" in str(error):
            raise ValueError("a quote opens that does not close") from None
        return _rows(list(csv.reader(io.StringIO(text, newline=""))))
    finally:
        csv.field_size_limit(limit)


def _rows(rows: list[list[str]]) -> Iterator[_ParsedItem]:
    """Items of rows; a first row of short cells, none of them empty or a number, is a header."""
    if not rows:
        return
    has_header = all(cell.strip() and len(cell.split()) <= 3 and not _is_number(cell) for cell in rows[0])
    column = _id_name(rows[0]) if has_header else None
    index = rows[0].index(column) if column is not None else None
    for number, row in enumerate(rows[1:] if has_header else rows):
        yield _ParsedItem(str(number), row[index] if index is not None and index < len(row) else None, tuple(row))


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).lstrip("-").isdigit()


def _json_lines(data: bytes) -> Iterator[_ParsedItem]:
    values = []
    for number, line in enumerate(_lines(data), 1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    return _walk(values, "", (), in_list=False)


def _json(data: bytes) -> Iterator[_ParsedItem]:
    """A JSON value, or JSON lines in a `.json` file, as in AQuA."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        return _json_lines(data)
    return _walk(value, "", (), in_list=False)


def _walk(value: Any, path: str, enclosing: tuple[str, ...], *, in_list: bool) -> Iterator[_ParsedItem]:
    """Items in a JSON value; an element of a list is an item unless it has no id but contains objects that have ids."""
    if isinstance(value, list):
        for number, element in enumerate(value):
            yield from _walk(element, f"{path}/{number}".lstrip("/"), enclosing, in_list=True)
    elif isinstance(value, dict) and _id_name(value) is None and (_has_ids(value) if in_list else _has_objects(value)):
        enclosing = (*enclosing, *(text for text in value.values() if isinstance(text, str)))
        for key, child in value.items():
            if isinstance(child, list | dict):
                yield from _walk(child, f"{path}/{key}".lstrip("/"), enclosing, in_list=False)
    else:
        name = _id_name(value) if isinstance(value, dict) else None
        yield _ParsedItem(path, None if name is None else str(value[name]), (*_texts(value), *enclosing))


def _has_objects(value: dict[str, Any]) -> bool:
    children = [child for field in value.values() for child in (field if isinstance(field, list) else [field])]
    return any(isinstance(child, dict) for child in children)


def _has_ids(value: Any) -> bool:
    if isinstance(value, dict):
        return _id_name(value) is not None or any(map(_has_ids, value.values()))
    return isinstance(value, list) and any(map(_has_ids, value))


def _id_name(names: Iterable[str]) -> str | None:
    """The field that identifies an item, if any."""
    by_lowercase = {name.lower(): name for name in names}
    return next((by_lowercase[name] for name in ID_FIELDS if name in by_lowercase), None)


def _texts(value: Any) -> Iterator[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _texts(child)


def _xml(data: bytes) -> Iterator[_ParsedItem]:
    """Children of the root are items and their children fields; markup inside a field does not split it."""
    for number, element in enumerate(ElementTree.fromstring(data)):
        fields = tuple(" ".join(child.itertext()) for child in element) or ("".join(element.itertext()),)
        yield _ParsedItem(str(number), element.get("id"), fields)


_READERS: dict[str, Callable[[bytes], Iterator[_ParsedItem]]] = {
    ".tsv": _tsv, ".csv": _csv, ".jsonl": _json_lines, ".json": _json, ".xml": _xml,
}  # fmt: skip
