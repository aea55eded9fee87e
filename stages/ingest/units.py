"""What ingest reads, unit by unit: files of text, or modules and metadata of the installed Python packages.

A unit is small enough for memory; its content becomes documents and rejects. Two sources, one way to list,
fingerprint and read them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from data_schemas.tables import DOCUMENTS, REJECTS, reject_row
from infra.funnel import Funnel
from infra.partitions import PartitionWriter
from stages.ingest import python_documentation as python
from stages.ingest import text_files

if TYPE_CHECKING:
    from stages.ingest.stage import IngestConfig

PYTHON_DOCUMENTATION = "python://documentation"
Unit = python.Unit | text_files.SourceFile


def list_units(config: "IngestConfig") -> Sequence[Unit]:
    """Everything to read under the byte cap, in the order it is read.

    Raises:
        InputDataError: where nothing matches the path.
    """
    if config.path == PYTHON_DOCUMENTATION:
        return python.select_units(python.list_units(), config.max_source_bytes)
    return _first_bytes(text_files.list_files(config.path), config.max_source_bytes)


def fingerprint(config: "IngestConfig") -> str:
    """Changes when the source does, as far as that shows without reading it."""
    if config.path == PYTHON_DOCUMENTATION:
        return python.fingerprint()
    files = text_files.list_files(config.path)
    rows = "\n".join(f"{file.path} {file.bytes} {file.fingerprint}" for file in files)
    return hashlib.sha256(rows.encode()).hexdigest()


def source_bytes(config: "IngestConfig") -> int:
    """Bytes of all units."""
    return sum(unit.bytes for unit in list_units(config))


def read_partition(config: "IngestConfig", payload: tuple[int, Sequence[Unit]], out: PartitionWriter) -> None:
    """Read some units into `documents/NUMBER.parquet` and `rejects/NUMBER.parquet`."""
    number, units = payload
    documents: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    funnel = Funnel()
    for unit in units:
        for row in _rows(unit, config):
            if "reason" in row:
                rejects.append(row)
                funnel.dropped(row, row["reason"], 0)
            else:
                documents.append(row)
                size = len(row["text"].encode())
                funnel.kept(row, size, size)
    funnel.write(out, f"funnel/{number:05d}.parquet")
    out.count("source_bytes", sum(unit.bytes for unit in units))
    out.write_table(f"documents/{number:05d}.parquet", pa.Table.from_pylist(documents, DOCUMENTS))
    out.write_table(f"rejects/{number:05d}.parquet", pa.Table.from_pylist(rejects, REJECTS))


def _rows(unit: Unit, config: "IngestConfig") -> Iterator[dict[str, Any]]:
    """Rows of the documents table, or of the rejects table (those have a `reason`)."""
    if isinstance(unit, python.Unit):
        yield from _python_rows(unit, config)
        return
    source = config.source or "files"
    for record in text_files.read_file(unit, config.text_field):
        if isinstance(record, text_files.Reject):
            yield reject(source, config.genre, record.path, record.position, record.reason)
        elif record.text.strip():
            yield {
                "id": f"{source}/{record.path}#{record.position}",
                "text": record.text, "source": source, "path": record.path, "genre": config.genre,
                "url": record.url, "licence": record.licence or config.licence,
                "metadata": [("id", record.id)] if record.id else None,
            }  # fmt: skip
        else:
            yield reject(source, config.genre, record.path, record.position, "empty text")


def _python_rows(unit: python.Unit, config: "IngestConfig") -> Iterator[dict[str, Any]]:
    for found in python.read_unit(unit):
        if isinstance(found, python.Reject):
            yield reject(unit.package, config.genre, unit.path, -1, found.reason)
        else:
            yield {
                "id": f"{config.source or found.package}/{found.path}#0",
                "text": found.text, "source": config.source or found.package, "path": found.path,
                "genre": config.genre, "licence": found.licence or config.licence, "language": "en",
                "metadata": [("version", found.version)],
            }  # fmt: skip


def _first_bytes(files: Sequence[text_files.SourceFile], most_bytes: int | None) -> Sequence[text_files.SourceFile]:
    """Files in the order of their paths' hash until the cap, at least one; all in path order without a cap."""
    if most_bytes is None:
        return files
    chosen: list[text_files.SourceFile] = []
    size = 0
    for file in sorted(files, key=lambda one: hashlib.sha256(one.path.encode()).hexdigest()):
        if chosen and size + file.bytes > most_bytes:
            break
        chosen.append(file)
        size += file.bytes
    return chosen


def reject(source: str, genre: str, path: str, position: int, reason: str) -> dict[str, Any]:
    """A row of the rejects table; `reason` is `name: detail`."""
    name, _, detail = reason.partition(": ")
    document = {"id": f"{source}/{path}", "source": source, "path": path, "genre": genre}
    return reject_row(document, name, size=0, position=position, detail=detail or None)
