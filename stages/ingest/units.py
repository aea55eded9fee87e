"""Units of input: files of text, or modules and metadata of the installed Python packages.

- `list_units`: all units to read, in order
- `fingerprints`, `text_bytes`: state and estimated text of the sources for `headrace plan`, without reading them
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
"""Name of a source of files without a configured name."""


@dataclass(frozen=True)
class Unit:
    """A file or a module, and the index of its source in the config."""

    source: int
    file: python.Unit | SourceFile

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.file.bytes


def list_units(config: IngestConfig) -> list[Unit]:
    """All units to read within the byte limits, source by source.

    Raises:
        InputDataError: if no file matches the path of a source.
        ConfigError: if documents of two sources would have the same id.
    """
    sources = config.all_sources()
    units = [Unit(number, file) for number, source in enumerate(sources) for file in _files(source)]
    names = Counter((collection(unit, sources[unit.source]), unit.file.path) for unit in units)
    [((name, path), count)] = names.most_common(1)
    if count > 1:
        raise ConfigError(
            f"{count} files would have documents with the same ids, {name}/{path}#...: several entries of "
            "ingest.sources have this name and contain this path; set a distinct `source` in each, such as "
            "source: my-books"
        )
    return units


def collection(unit: Unit, source: SourceConfig) -> str:
    """Prefix of the ids of a unit's documents; a record's own `source` does not change its id."""
    return source.source or (unit.file.package if isinstance(unit.file, python.Unit) else UNNAMED)


def fingerprints(config: IngestConfig) -> dict[str, str]:
    """Path of each source -> fingerprint of its files, without reading them."""
    return {source.path: _fingerprint(source) for source in config.all_sources()}


def text_bytes(config: IngestConfig, units: Sequence[Unit]) -> int:
    """Estimated bytes of text in the units."""
    sources = config.all_sources()
    return sum(
        int(unit.bytes * TEXT_SHARE_OF_PYTHON_SOURCE)
        if isinstance(unit.file, python.Unit)
        else file_formats.text_bytes(unit.file.url, unit.bytes, sources[unit.source])
        for unit in units
    )


def grouped(units: Sequence[Unit], partition_bytes: int) -> Iterator[Sequence[Unit]]:
    """Group consecutive units into partitions of about `partition_bytes`."""
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
        return python.fingerprint(source.max_source_bytes)
    rows = "\n".join(f"{file.path} {file.bytes} {file.fingerprint}" for file in list_files(source))
    return hashlib.sha256(rows.encode()).hexdigest()


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
