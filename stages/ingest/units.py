"""What ingest reads, unit by unit: files of text, or modules and metadata of the installed Python packages.

- `list_units`: everything to read, in order
- `fingerprints`, `text_bytes`: what `headrace plan` wants to know without reading any of it
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_schemas.errors import ConfigError
from stages.ingest import file_formats
from stages.ingest import python_documentation as python
from stages.ingest.config import PYTHON_DOCUMENTATION, IngestConfig, SourceConfig
from stages.ingest.file_listing import SourceFile, list_files

TEXT_SHARE_OF_PYTHON_SOURCE = 0.24
UNNAMED = "files"
"""Name of a source of files that has none."""


@dataclass(frozen=True)
class Unit:
    """A file, or a module, and which of the configured sources it belongs to."""

    source: int
    file: python.Unit | SourceFile

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.file.bytes


def list_units(config: IngestConfig) -> list[Unit]:
    """Everything to read under the byte caps, source by source.

    Raises:
        InputDataError: where nothing matches the path of a source.
        ConfigError: where documents of two sources would have the same id.
    """
    sources = config.all_sources()
    units = [Unit(number, file) for number, source in enumerate(sources) for file in _files(source)]
    names = Counter((collection(unit, sources[unit.source]), unit.file.path) for unit in units)
    [((name, path), times)] = names.most_common(1)
    if times > 1:
        raise ConfigError(
            f"{times} files would give documents with the ids {name}/{path}#...: two entries of ingest.sources are "
            "both called by that name and hold that path; give each its own `source`, such as source: my-books"
        )
    return units


def collection(unit: Unit, source: SourceConfig) -> str:
    """Name that the ids of a unit's documents begin with; a record's own `source` does not change its id."""
    return source.source or (unit.file.package if isinstance(unit.file, python.Unit) else UNNAMED)


def fingerprints(config: IngestConfig) -> dict[str, str]:
    """Path of each source -> what changes when its files do, as far as that shows without reading them."""
    return {source.path: _fingerprint(source) for source in config.all_sources()}


def text_bytes(config: IngestConfig, units: Sequence[Unit]) -> int:
    """About how much text the units hold."""
    sources = config.all_sources()
    return sum(
        int(unit.bytes * TEXT_SHARE_OF_PYTHON_SOURCE)
        if isinstance(unit.file, python.Unit)
        else file_formats.text_bytes(unit.file.url, unit.bytes, sources[unit.source])
        for unit in units
    )


def grouped(units: Sequence[Unit], partition_bytes: int) -> Iterator[Sequence[Unit]]:
    """Cut a sequence of units into partitions of about `partition_bytes`, in order."""
    group: list[Unit] = []
    size = 0
    for unit in units:
        if group and size + unit.bytes > partition_bytes:
            yield group
            group, size = [], 0
        group.append(unit)
        size += unit.bytes
    if group:
        yield group


def _files(source: SourceConfig) -> Sequence[python.Unit | SourceFile]:
    if source.path == PYTHON_DOCUMENTATION:
        return python.select_units(python.list_units(), source.max_source_bytes)
    return _first_bytes(list_files(source), source.max_source_bytes)


def _fingerprint(source: SourceConfig) -> str:
    if source.path == PYTHON_DOCUMENTATION:
        return python.fingerprint()
    rows = "\n".join(f"{file.path} {file.bytes} {file.fingerprint}" for file in list_files(source))
    return hashlib.sha256(rows.encode()).hexdigest()


def _first_bytes(files: Sequence[SourceFile], most_bytes: int | None) -> Sequence[SourceFile]:
    """Files in the order of their paths' hash until the cap, at least one; all in path order without a cap."""
    if most_bytes is None:
        return files
    chosen: list[SourceFile] = []
    size = 0
    for file in sorted(files, key=lambda one: hashlib.sha256(one.path.encode()).hexdigest()):
        if chosen and size + file.bytes > most_bytes:
            break
        chosen.append(file)
        size += file.bytes
    return chosen
