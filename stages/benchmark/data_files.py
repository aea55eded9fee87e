"""Benchmark data on the local disk: where a file is, what is in it, and what to say where it is not.

- `find_file`: the first of several names, plain or `.gz`
- `read_text`, `read_lines`, `read_json_lines`: contents, with errors that name the file and the line
- `missing_data_message`: why a task was not run: the missing files and a command that downloads them
- `sample_items`: at most so many items, by a seed
- `content_digest`, `folder_state`: what the stage's key knows of files
"""

import gzip
import hashlib
import json
import random
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from data_schemas.errors import InputDataError
from stages.benchmark.remote_files import display_path, is_available

OWN_DATA = Path(__file__).parent / "data"
"""Items of Headrace's own writing, in the layouts of the official files."""
Item = TypeVar("Item")


def find_file(folder: Path, *names: str) -> Path | None:
    """The first of `names` that is in the folder, as it is or with `.gz` behind it."""
    paths = (folder / ending for name in names for ending in (name, f"{name}.gz"))
    return next((path for path in paths if is_available(path)), None)


def missing_data_message(folder: Path, names: Sequence[str], get: str) -> str:
    """Why a task was not run: files that are missing, and the command that downloads them."""
    paths = " or ".join(display_path(folder / name) for name in names)
    return f"not run: no data at {paths}; get it with: {get}"


def read_text(path: Path, encoding: str = "utf-8-sig") -> str:
    """The text of a file, decompressed where it is gzip.

    Raises:
        InputDataError: where it cannot be read.
    """
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode(encoding)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputDataError(f"{path} cannot be read as text in {encoding}: {error}") from error


def read_lines(path: Path) -> list[str]:
    """Lines without their ends; only LF and CR LF end a line, as texts hold other separators."""
    return [line.removesuffix("\r") for line in read_text(path).split("\n")]


def read_json_lines(path: Path, fields: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """(where it stands, object) of each line; an array of objects as the whole file is taken too.

    Raises:
        InputDataError: where a line is no object or lacks one of `fields`, naming them.
    """
    text = read_text(path)
    rows = _array(text, path) if text.lstrip().startswith("[") else _objects(text, path)
    for where, row in rows:
        missing = [name for name in fields if name not in row] if isinstance(row, dict) else list(fields)
        if missing:
            found = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise InputDataError(f"{where}: field {missing[0]!r} is missing; found {found}, needed {', '.join(fields)}")
    if not rows:
        raise InputDataError(f"{path} holds no items; expected objects with {', '.join(fields)}")
    return rows


def _array(text: str, path: Path) -> list[tuple[str, Any]]:
    try:
        return [(f"{path}, item {number}", row) for number, row in enumerate(json.loads(text), start=1)]
    except json.JSONDecodeError as error:
        raise InputDataError(f"{path} is not JSON ({error}); expected an array of objects") from error


def _objects(text: str, path: Path) -> list[tuple[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                rows.append((where, json.loads(line)))
            except json.JSONDecodeError as error:
                raise InputDataError(f"{where} is not JSON ({error}); expected one object a line") from error
    return rows


def sample_items(items: Sequence[Item], limit: int | None, seed: int) -> list[Item]:
    """`limit` items by the seed, in the file's order; all where there is no limit."""
    if limit is None or limit >= len(items):
        return list(items)
    chosen = sorted(random.Random(seed).sample(range(len(items)), limit))
    return [items[place] for place in chosen]


def folder_state(folder: Path) -> str:
    """sha256 over names, sizes and times of a folder's files, for files too large to read for a plan."""
    files = sorted(path for path in folder.glob("*") if path.is_file())
    states = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join(states).encode()).hexdigest()


def content_digest(paths: Sequence[Path]) -> str:
    """sha256 over the files that are there; a file that comes or goes changes it too."""
    whole = hashlib.sha256()
    for path in paths:
        if is_available(path):
            whole.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()
