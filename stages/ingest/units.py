"""Units of input: files of text, or modules and metadata of the installed Python packages.

- `list_sources`: all units to read, in order, with what is passed over and the state of each source
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_schemas.errors import ConfigError
from data_schemas.public_urls import public_url
from stages.common.passed_over import PassedOver
from stages.ingest import python_documentation as python
from stages.ingest.config import PYTHON_DOCUMENTATION, IngestConfig, SourceConfig
from stages.ingest.file_listing import SourceFile, list_files

UNNAMED = "files"
"""Name of a source of files without a configured name."""
UNKNOWN_GENRE, PYTHON_GENRE = "unknown", "technical documentation"
"""Genres of files and of Python's documentation without a configured one."""


@dataclass(frozen=True)
class Unit:
    """A file or a module, and the index of its source in the config."""

    source: int
    file: python.Unit | SourceFile

    @property
    def bytes(self) -> int:
        """Size of the file, or of the part of it to read."""
        rows = self.file.rows if isinstance(self.file, SourceFile) else None
        return self.file.bytes if rows is None else rows.bytes


@dataclass
class SourceListing:
    """The state of all sources at one time: what is keyed, read and recorded."""

    units: list[Unit] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Public path of each source -> digest of the state of its files."""


def list_sources(config: IngestConfig, store: str = "") -> SourceListing:
    """All units to read within the byte limits, source by source.

    Args:
        config: the stage's settings.
        store: URL of the artifact store, whose files are no input.

    Raises:
        InputDataError: if no file matches the path of a source.
        ConfigError: if documents of two sources would have the same id.
    """
    listing = SourceListing()
    sources = config.all_sources()
    for number, source in enumerate(sources):
        fingerprint = _add_source(listing, number, source, store)
        name = public_url(source.path)
        if listing.fingerprints.get(name, fingerprint) != fingerprint:  # the same path with other settings
            name = f"{name} (source {number + 1})"
        listing.fingerprints[name] = fingerprint
    _check_ids(listing.units, sources)
    return listing


def id_prefix(unit: Unit, source: SourceConfig) -> str:
    """Prefix of the ids of a unit's documents; its first slash ends the name, so that no two names and paths agree."""
    return collection(unit, source).replace("%", "%25").replace("/", "%2F")


def collection(unit: Unit, source: SourceConfig) -> str:
    """Name of a unit's source; a record's own `source` does not change its id."""
    return source.source or (unit.file.package if isinstance(unit.file, python.Unit) else UNNAMED)


def genre(unit: Unit, source: SourceConfig) -> str:
    """Genre of a unit's documents that name none."""
    return source.genre or (PYTHON_GENRE if isinstance(unit.file, python.Unit) else UNKNOWN_GENRE)


def _add_source(listing: SourceListing, number: int, source: SourceConfig, store: str) -> str:
    """Add the units of a source; returns its fingerprint."""
    if source.path == PYTHON_DOCUMENTATION:
        units = python.select_units(python.list_units(), source.max_source_bytes)
        listing.units += [Unit(number, unit) for unit in units]
        return python.fingerprint(source.max_source_bytes)
    files, passed_over = list_files(source, store)
    selected = _first_bytes(files, source.max_source_bytes)
    listing.units += [Unit(number, file) for file in selected]
    listing.passed_over += passed_over
    if len(selected) < len(files):
        paths = {file.path for file in selected}
        listing.passed_over += [
            PassedOver(file.path, "beyond max_source_bytes") for file in files if file.path not in paths
        ]
    rows = [(file.path, file.bytes, file.fingerprint, file.format) for file in selected]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _check_ids(units: Sequence[Unit], sources: Sequence[SourceConfig]) -> None:
    names = Counter((id_prefix(unit, sources[unit.source]), unit.file.path) for unit in units)
    for (name, path), count in names.most_common(1):
        if count == 1:
            return
        raise ConfigError(
            f"{count} files would have documents with the same ids, {name}/{path}#...: several entries of "
            "ingest.sources have this name and contain this path, in which queries of web addresses do not count; set "
            "a distinct `source` in each, such as source: my-books"
        )


def _first_bytes(files: Sequence[SourceFile], max_bytes: int | None) -> Sequence[SourceFile]:
    """Files in the order of their paths' hash up to the limit, at least one; all in path order without a limit."""
    if max_bytes is None:
        return files
    selected: list[SourceFile] = []
    size = 0
    for file in sorted(files, key=lambda file: hashlib.sha256(file.path.encode()).hexdigest()):
        if selected and size + file.bytes > max_bytes:
            break
        selected.append(file)
        size += file.bytes
    return selected
