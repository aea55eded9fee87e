"""Documentation of Python and of the packages that Headrace depends on, which every machine with Headrace has.

- `list_units`: topics, modules and package descriptions, without parsing them
- `select_units`: a deterministic selection with up to a number of source bytes
- `read_unit`: the documents of a unit; modules are parsed, never imported
- `fingerprint`: digest of a selection
"""

import ast
import csv
import email
import email.message
import functools
import hashlib
import inspect
import os
import platform
import stat
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

STANDARD_LIBRARY = "python"
OWN_DISTRIBUTION = "headrace"
SKIPPED_FOLDERS = frozenset(
    ("test", "tests", "testing", "conftest", "idlelib", "lib2to3", "site-packages", "__pycache__", "_vendor")
)
MAX_MODULE_BYTES = 1_000_000
"""Larger modules are generated tables, slow to parse and without prose."""
MIN_TEXT_CHARACTERS = 300


@dataclass(frozen=True)
class Unit:
    """A file with documentation."""

    kind: Literal["topics", "module", "description"]
    package: str
    version: str
    licence: str | None
    path: str
    """Relative to the library's or the site's folder, with forward slashes."""
    file: str
    bytes: int


@dataclass(frozen=True)
class SourceDocument:
    """A document and its origin."""

    path: str
    text: str
    package: str
    version: str
    licence: str | None


@dataclass(frozen=True)
class Reject:
    """A unit that cannot be read, and the reason."""

    reason: str


def list_units() -> list[Unit]:
    """All units of this interpreter and the packages that Headrace depends on, sorted by package and path.

    They are listed once per process, which takes seconds, and again after a package was installed or removed.
    """
    return list(_listed_units(_installed_state()))


def _installed_state() -> tuple[tuple[str, int], ...]:
    """Path and modification time of the folders with modules, and of the descriptions of packages in them."""
    folders = [Path(folder or ".") for folder in (sysconfig.get_paths()["stdlib"], *sys.path)]
    descriptions = [path for folder in folders if folder.is_dir() for path in folder.glob("*.*-info")]
    return tuple((str(path), path.stat().st_mtime_ns) for path in (*folders, *sorted(descriptions)) if path.exists())


@functools.lru_cache(maxsize=1)
def _listed_units(state: tuple[tuple[str, int], ...]) -> tuple[Unit, ...]:
    units = [
        *_standard_library(),
        *(unit for name, distribution in _distributions().items() for unit in _distribution_units(name, distribution)),
    ]
    return tuple(sorted(units, key=lambda unit: (unit.package, unit.path, unit.kind)))


def select_units(units: Sequence[Unit], max_source_bytes: int | None) -> list[Unit]:
    """Units in the order of their path's sha256, up to `max_source_bytes`."""
    selected: list[Unit] = []
    size = 0
    for unit in sorted(units, key=lambda unit: hashlib.sha256(f"{unit.package}/{unit.path}".encode()).hexdigest()):
        if max_source_bytes is not None and size + unit.bytes > max_source_bytes:
            break
        selected.append(unit)
        size += unit.bytes
    return selected


def fingerprint(max_source_bytes: int | None) -> str:
    """Digest of package, version, path and size of all selected units."""
    units = select_units(list_units(), max_source_bytes)
    rows = "\n".join(f"{unit.package} {unit.version} {unit.path} {unit.bytes}" for unit in units)
    return hashlib.sha256(rows.encode()).hexdigest()


def read_unit(unit: Unit) -> Iterator[SourceDocument | Reject]:
    """Documents of a unit: one, many for topics, none if there is too little text; or a reject."""
    try:
        source = Path(unit.file).read_bytes()
        texts = list(_texts(unit, source))
        for _, text in texts:
            text.encode()  # A docstring may contain an escaped lone surrogate, which UTF-8 cannot.
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        yield Reject(f"not readable as Python source ({type(error).__name__})")
        return
    for name, text in texts:
        if len(text) >= MIN_TEXT_CHARACTERS:
            yield SourceDocument(name, text, unit.package, unit.version, unit.licence)


def module_documentation(source: bytes, module: str) -> str:
    """A module's docstrings in source order under their qualified names, dedented as by pydoc."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 and later warn of invalid escape sequences in the parsed code.
        tree = ast.parse(source)
    parts = [f"{name}\n\n{docstring}" if name != module else docstring for name, docstring in _docstrings(tree, module)]
    return "\n\n".join(parts)


def _texts(unit: Unit, source: bytes) -> Iterator[tuple[str, str]]:
    if unit.kind == "topics":
        for name, text in sorted(_topics(source).items()):
            yield f"{unit.path}:{name}", text
    elif unit.kind == "description":
        message = email.message_from_bytes(source)
        payload = message.get_payload(decode=True)
        body = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
        yield unit.path, body or str(message.get("Description", ""))
    else:
        yield unit.path, module_documentation(source, _module_name(unit.path))


def _topics(source: bytes) -> dict[str, str]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics = ast.literal_eval(node.value)
            return {str(name): str(text) for name, text in topics.items()}
    raise ValueError("no dictionary of topics")


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node, clean=False)
        if docstring and docstring.strip():
            yield name, inspect.cleandoc(docstring)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child, f"{name}.{child.name}")
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _docstrings(child, name)


def _standard_library() -> Iterator[Unit]:
    root, version = sysconfig.get_paths()["stdlib"], platform.python_version()
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(set(subfolders) - SKIPPED_FOLDERS)
        for name in names:
            file = os.path.join(folder, name)  # noqa: PTH118 - objects of paths for all files of all packages take seconds
            path = PurePosixPath(file.removeprefix(root).replace(os.sep, "/").lstrip("/"))
            if path.suffix == ".py" and _is_documentation(path) and (size := _size(file)):
                kind: Literal["topics", "module"] = "topics" if str(path) == "pydoc_data/topics.py" else "module"
                yield Unit(kind, STANDARD_LIBRARY, version, "PSF-2.0", str(path), file, size)


def _distributions() -> dict[str, metadata.Distribution]:
    """Normalized name -> package, for those that Headrace depends on, directly or through others.

    Without Headrace itself and its extras, and without packages from a folder or a direct URL (also editable): their
    version does not determine their content.
    """
    headers = ((package, _headers(package)) for package in metadata.distributions())
    installed = {canonicalize_name(header["Name"]): (package, header) for package, header in headers if header["Name"]}
    requirements: dict[str, Sequence[str]] = {
        # The lines of packages without METADATA are in files of their own.
        name: header.get_all("Requires-Dist")
        or (package.requires if package.read_text("METADATA") is None else [])
        or []
        for name, (package, header) in installed.items()
    }
    names = dependencies(requirements, OWN_DISTRIBUTION) - {OWN_DISTRIBUTION}
    used = {
        str(name): package
        for name, (package, _) in sorted(installed.items(), key=lambda item: item[0])
        if name in names
    }
    return {name: package for name, package in used.items() if package.read_text("direct_url.json") is None}


def _headers(distribution: metadata.Distribution) -> email.message.Message:
    """The fields of a package's METADATA, without its description, which is far longer."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or distribution.read_text("") or ""
    return email.message_from_string(text.split("\n\n", 1)[0])


def dependencies(requirements: Mapping[str, Sequence[str]], package: str) -> set[str]:
    """Names of the packages that `package` requires on this platform, directly or through others, and its own.

    Args:
        requirements: normalized name -> requirement lines (PEP 508) of installed packages.
        package: normalized name.
    """
    seen = {(package, "")}
    pending = [*seen]
    while pending:
        name, extra = pending.pop()
        for requirement in map(Requirement, requirements.get(name, ())):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                required = canonicalize_name(requirement.name)
                further = {(required, ""), *((required, wanted) for wanted in requirement.extras)} - seen
                seen |= further
                pending += further
    return {name for name, _ in seen}


def _distribution_units(name: str, distribution: metadata.Distribution) -> Iterator[Unit]:
    fields = _headers(distribution)
    version = fields["Version"] or distribution.version
    licence = fields["License-Expression"] or fields["License"]
    short_licence = licence.splitlines()[0][:80] if licence else None
    root = str(distribution.locate_file(""))
    for path in map(PurePosixPath, _recorded(distribution)):
        # Top level only: a package may include the metadata of packages that it vendors.
        is_description = path.name == "METADATA" and len(path.parts) == 2
        if not is_description and not (path.suffix == ".py" and _is_documentation(path)):
            continue
        file = os.path.join(root, *path.parts)  # noqa: PTH118 - as above
        if size := _size(file):
            kind: Literal["module", "description"] = "description" if is_description else "module"
            yield Unit(kind, name, version, short_licence, path.as_posix(), file, size)


def _recorded(distribution: metadata.Distribution) -> Iterator[str]:
    """Paths of a package's modules and descriptions, relative to the folder that it is installed in."""
    record = distribution.read_text("RECORD")
    if record is None:
        yield from (path.as_posix() for path in distribution.files or [])
        return
    for row in csv.reader(record.splitlines()):
        if row and row[0].endswith((".py", "METADATA")):
            yield row[0]


def _size(file: str) -> int:
    """Bytes of a file; 0 if it is none, or too large to be read."""
    try:
        status = os.stat(file)  # noqa: PTH116 - as above
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_MODULE_BYTES else 0


def _is_documentation(path: PurePosixPath) -> bool:
    folders = {*path.parts[:-1], path.stem}
    return not (folders & SKIPPED_FOLDERS or path.name.startswith("test_") or ".." in path.parts)


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
