"""The items of benchmark files, whatever their layout.

- `benchmark_files`: files that the configured globs match; `fingerprint`: what they look like from outside
- `read_items`: each item's id and texts

A row or an object is an item, and each text in it a field. Where JSON nests, the outermost object with an id of its
own is an item, and the texts of the objects around it are fields of it too: a question of SQuAD carries its paragraph.
"""

import csv
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from xml.etree import ElementTree

import fsspec

from data_schemas.errors import InputDataError

ID_FIELDS = ("id", "uid", "qid", "task_id", "idx", "index", "pairid")
"""Names of fields that identify an item, without case, the first that a row has."""
ENDINGS = (".tsv", ".csv", ".jsonl", ".json", ".xml")
_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class BenchmarkFile:
    """One file of a benchmark; picklable."""

    name: str
    """As configured: the glob's own beginning, then what its wildcards matched."""
    url: str
    state: str
    """Size, and modification time or ETag."""


@dataclass(frozen=True)
class Item:
    """One item of a benchmark."""

    id: str
    """Its own id where the items' ids are unique in their file, else its row from 0, or its path in the JSON value."""
    fields: tuple[str, ...]
    """Its texts; an n-gram never spans two of them."""


class _Found(NamedTuple):
    place: str
    own_id: str | None
    fields: tuple[str, ...]


def benchmark_files(globs: Sequence[str]) -> list[BenchmarkFile]:
    """Files that the globs match, sorted by name, each once.

    Raises:
        InputDataError: where a glob matches nothing, or a file that cannot be a benchmark.
    """
    found: dict[str, BenchmarkFile] = {}
    for pattern in globs:
        for file in _matches(pattern):
            found.setdefault(file.url, file)
    return sorted(found.values(), key=lambda file: file.name)


def fingerprint(globs: Sequence[str]) -> dict[str, str]:
    """Glob -> a digest of the names, sizes and times of its files."""
    states = {pattern: sorted(f"{file.name} {file.state}" for file in _matches(pattern)) for pattern in globs}
    return {pattern: hashlib.sha256("\n".join(rows).encode()).hexdigest() for pattern, rows in states.items()}


def read_items(file: BenchmarkFile) -> list[Item]:
    """Items in the file's order.

    Raises:
        InputDataError: where the file does not hold what its ending says, naming the file and the place.
    """
    try:
        with fsspec.open(file.url, "rb") as stream:
            data: bytes = stream.read()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        found = list(_READERS[_ending(file.url)](data))
    except (OSError, EOFError, zlib.error, ValueError, csv.Error, ElementTree.ParseError) as error:
        raise InputDataError(
            f"the benchmark file {file.name} cannot be read: {error}; dedup.decontaminate.benchmarks accepts "
            f"{', '.join(ENDINGS)} in UTF-8 (.xml as it declares), each also .gz"
        ) from None
    own = {one.own_id for one in found}
    unique = None not in own and len(own) == len(found)
    return [Item((one.own_id or "") if unique else one.place, one.fields) for one in found]


def _matches(pattern: str) -> list[BenchmarkFile]:
    try:
        filesystem, root = fsspec.core.url_to_fs(pattern)
        infos = {root: filesystem.info(root)} if filesystem.isfile(root) else filesystem.glob(root, detail=True)
    except (OSError, ImportError, ValueError) as error:
        raise InputDataError(f"cannot list dedup.decontaminate.benchmarks {pattern!r}: {error}") from None
    prefix, full = (pattern, root) if root in infos else (_WILDCARD.split(one)[0] for one in (pattern, root))
    files = []
    for path, info in sorted(infos.items()):
        if info["type"] == "file":
            if _ending(path) not in ENDINGS:
                raise InputDataError(
                    f"dedup.decontaminate.benchmarks {pattern!r} matches {path}, which is no benchmark file; accepted "
                    f"are {', '.join(ENDINGS)}, each also .gz: make the glob narrower"
                )
            stamp = next(
                (str(info[key]) for key in ("ETag", "etag", "md5Hash", "mtime", "created") if info.get(key)), ""
            )
            name = prefix + path.removeprefix(full)
            files.append(BenchmarkFile(name, filesystem.unstrip_protocol(path), f"{info['size']} {stamp}"))
    if not files:
        raise InputDataError(
            f"dedup.decontaminate.benchmarks {pattern!r} matches no file; correct the glob or remove it"
        )
    return files


def _ending(path: str) -> str:
    bare = path.lower().removesuffix(".gz")
    return bare[bare.rfind(".") :]


def _tsv(data: bytes) -> Iterator[_Found]:
    """GLUE's files know no quoting: a tab ends a field, whatever stands around it."""
    lines = data.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    return _rows([line.split("\t") for line in lines if line])


def _csv(data: bytes) -> Iterator[_Found]:
    return _rows(list(csv.reader(data.decode("utf-8-sig").splitlines(keepends=True))))


def _rows(rows: list[list[str]]) -> Iterator[_Found]:
    """A first row of short cells, none of them empty or a number, is a header."""
    if not rows:
        return
    has_header = all(cell.strip() and len(cell.split()) <= 3 and not _is_number(cell) for cell in rows[0])
    column = _id_name(rows[0]) if has_header else None
    at = rows[0].index(column) if column is not None else None
    for number, row in enumerate(rows[1:] if has_header else rows):
        yield _Found(str(number), row[at] if at is not None and at < len(row) else None, tuple(row))


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).lstrip("-").isdigit()


def _json_lines(data: bytes) -> Iterator[_Found]:
    values = []
    for place, line in enumerate(data.decode("utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {place}: {error}") from None
    return _walk(values, "", (), in_list=False)


def _json(data: bytes) -> Iterator[_Found]:
    """One JSON value, or JSON lines in spite of the name, as AQuA has it."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        return _json_lines(data)
    return _walk(value, "", (), in_list=False)


def _walk(value: Any, place: str, around: tuple[str, ...], *, in_list: bool) -> Iterator[_Found]:
    """Items in a JSON value; what stands in a list is an item as a whole unless it only holds objects that have ids."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from _walk(one, f"{place}/{number}".lstrip("/"), around, in_list=True)
    elif isinstance(value, dict) and _id_name(value) is None and (_has_ids(value) if in_list else _has_objects(value)):
        around = (*around, *(text for text in value.values() if isinstance(text, str)))
        for key, one in value.items():
            if isinstance(one, list | dict):
                yield from _walk(one, f"{place}/{key}".lstrip("/"), around, in_list=False)
    else:
        name = _id_name(value) if isinstance(value, dict) else None
        yield _Found(place, None if name is None else str(value[name]), (*_texts(value), *around))


def _has_objects(value: dict[str, Any]) -> bool:
    inside = [one for some in value.values() for one in (some if isinstance(some, list) else [some])]
    return any(isinstance(one, dict) for one in inside)


def _has_ids(value: Any) -> bool:
    if isinstance(value, dict):
        return _id_name(value) is not None or any(map(_has_ids, value.values()))
    return isinstance(value, list) and any(map(_has_ids, value))


def _id_name(names: Iterable[str]) -> str | None:
    """The field that identifies an item, if any."""
    spelled = {name.lower(): name for name in names}
    return next((spelled[name] for name in ID_FIELDS if name in spelled), None)


def _texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _xml(data: bytes) -> Iterator[_Found]:
    """Children of the root are items and their children fields: a sentence that markup divides is one text."""
    for number, element in enumerate(ElementTree.fromstring(data)):
        fields = tuple(" ".join(child.itertext()) for child in element) or ("".join(element.itertext()),)
        yield _Found(str(number), element.get("id"), fields)


_READERS: dict[str, Callable[[bytes], Iterator[_Found]]] = {
    ".tsv": _tsv, ".csv": _csv, ".jsonl": _json_lines, ".json": _json, ".xml": _xml,
}  # fmt: skip
