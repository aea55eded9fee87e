"""Benchmark data on the local disk: finding, reading, sampling and fingerprinting files.

- `find_file`: the first of several names that exists, plain or `.gz`
- `missing_data_message`: why a task was not run: the missing files and a command that downloads them
- `read_text`, `read_lines`, `read_json_lines`: contents, with errors that name file and line
- `sample_items`: a seeded sample of items
- `content_digest`, `folder_state`: fingerprints of files for the stage's cache key
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
"""Items written for Headrace, in the layouts of the official files."""
Item = TypeVar("Item")


def find_file(folder: Path, *names: str) -> Path | None:
    """The first of `names` that exists in the folder, plain or with the suffix `.gz`."""
    paths = (folder / candidate for name in names for candidate in (name, f"{name}.gz"))
    return next((path for path in paths if is_available(path)), None)


def missing_data_message(folder: Path, names: Sequence[str], download_command: str) -> str:
    """Why a task was not run: the missing files and the command that downloads them."""
    paths = " or ".join(display_path(folder / name) for name in names)
    return f"not run: no data at {paths}; get it with: {download_command}"


def read_text(path: Path, encoding: str = "utf-8-sig") -> str:
    """Text of a file, decompressed if it is gzip.

    Raises:
        InputDataError: if it cannot be read.
    """
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode(encoding)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputDataError(f"{path} cannot be read as text in {encoding}: {error}") from error


def read_lines(path: Path) -> list[str]:
    """Lines without their terminators; only LF and CR LF end a line, as texts contain other separators."""
    return [line.removesuffix("\r") for line in read_text(path).split("\n")]


def read_json_lines(path: Path, fields: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """(location, object) of each line; a file that is one JSON array of objects is accepted too.

    Raises:
        InputDataError: if a line is not an object or lacks one of `fields`.
    """
    text = read_text(path)
    rows = _array(text, path) if text.lstrip().startswith("[") else _objects(text, path)
    for location, row in rows:
        missing = [name for name in fields if name not in row] if isinstance(row, dict) else list(fields)
        if missing:
            present = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise InputDataError(
                f"{location}: field {missing[0]!r} is missing; found {present}, required are {', '.join(fields)}"
            )
    if not rows:
        raise InputDataError(f"{path} contains no items; expected objects with {', '.join(fields)}")
    return rows


def _array(text: str, path: Path) -> list[tuple[str, Any]]:
    try:
        return [(f"{path}, item {number}", row) for number, row in enumerate(json.loads(text), start=1)]
    except json.JSONDecodeError as error:
        raise InputDataError(f"{path} is not valid JSON ({error}); expected an array of objects") from error


def _objects(text: str, path: Path) -> list[tuple[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            location = f"{path}, line {number}"
            try:
                rows.append((location, json.loads(line)))
            except json.JSONDecodeError as error:
                raise InputDataError(f"{location} is not valid JSON ({error}); expected one object per line") from error
    return rows


def sample_items(items: Sequence[Item], limit: int | None, seed: int) -> list[Item]:
    """A random sample of `limit` items, in the order of the file; all items without a limit."""
    if limit is None or limit >= len(items):
        return list(items)
    indices = sorted(random.Random(seed).sample(range(len(items)), limit))
    return [items[index] for index in indices]


def folder_state(folder: Path) -> str:
    """sha256 over names, sizes and modification times of a folder's files, for files too large to read in a plan."""
    files = sorted(path for path in folder.glob("*") if path.is_file())
    states = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join(states).encode()).hexdigest()


def content_digest(paths: Sequence[Path]) -> str:
    """sha256 over the files that exist; adding or removing a file changes it too."""
    digest = hashlib.sha256()
    for path in paths:
        if is_available(path):
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
