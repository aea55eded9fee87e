"""One partition of ingest: reads units and writes documents, rejects and their funnel, in files of bounded size."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from data_schemas.language_codes import iso_code
from data_schemas.tables import DOCUMENTS, REJECTS, reject_row
from infra.workers.partitions import PartitionWriter
from stages.common.funnel import Funnel
from stages.common.scripts import unspaced_bytes
from stages.ingest import python_documentation as python
from stages.ingest.byte_streams import ByteCounter
from stages.ingest.config import IngestConfig, SourceConfig
from stages.ingest.file_listing import SourceFile
from stages.ingest.readers import read_file
from stages.ingest.records import Failure, Record
from stages.ingest.reject_limit import BrokenRecords, is_exceeded
from stages.ingest.units import Unit, collection, genre, id_prefix

MAX_DETAIL_CHARACTERS = 200
ROW_BYTES = 200
"""Approximate size of a row's other columns."""

Row = dict[str, Any]


def read_partition(
    config: IngestConfig, all_bytes: int, payload: tuple[str, Sequence[Unit]], out: PartitionWriter
) -> None:
    """Read some units.

    Args:
        config: the stage's settings.
        all_bytes: source bytes of all partitions.
        payload: name of the partition, and its units.
        out: receives `documents/`, `rejects/` and `funnel/NAME.parquet`, and `NAME_000001.parquet` and so on if
            there is more text than `partition_bytes`.

    Raises:
        InputDataError: if this partition alone has more broken records than the whole corpus may have.
    """
    name, units = payload
    assert config.partition_bytes, "resolved by the stage"
    documents = _TableFiles(out, "documents", name, DOCUMENTS, config.partition_bytes)
    rejects = _TableFiles(out, "rejects", name, REJECTS, config.partition_bytes)
    funnel = Funnel()
    counter = ByteCounter()
    broken = BrokenRecords()
    records = unspaced = 0
    for unit in units:
        source = config.all_sources()[unit.source]
        for row in _rows(unit, source, config, counter):
            records += 1
            if "reason" not in row:
                size = len(row["text"].encode())
                documents.add(row, size + ROW_BYTES)
                unspaced += unspaced_bytes(row["text"], size)
                funnel.kept(row, size, size)
                continue
            rejects.add(row, ROW_BYTES)
            funnel.dropped(row, row["reason"], row["bytes"])
            broken.add(row)
            share_read = counter.processed / all_bytes if all_bytes else 0.0  # web servers may not report sizes
            share_lost = broken.lost_bytes / all_bytes if all_bytes else 0.0
            if is_exceeded(
                config, records=records, broken=broken.reasons.total(), share_read=share_read, share_lost=share_lost
            ):
                raise broken.error(config, records, all_bytes)
        counter.finish(unit.bytes)
    out.count("source_bytes", sum(unit.bytes for unit in units))
    out.count("unspaced_bytes", unspaced)
    out.count("broken_records", broken.reasons.total())
    out.count("lost_bytes", broken.lost_bytes)
    for kind, count in sorted(counter.passed_over.items()):
        out.count(f"passed_over.{kind}", count)
    documents.close()
    rejects.close()
    funnel.write(out, f"funnel/{name}.parquet")


class _TableFiles:
    """Rows of one table, written to a new file whenever they reach `max_bytes`."""

    def __init__(self, out: PartitionWriter, folder: str, name: str, schema: pa.Schema, max_bytes: int) -> None:
        self._out = out
        self._name = f"{folder}/{name}"
        self._schema = schema
        self._max_bytes = max_bytes
        self._rows: list[Row] = []
        self._bytes = 0
        self._files = 0

    def add(self, row: Row, size: int) -> None:
        """Add a row of about `size` bytes."""
        if self._rows and self._bytes + size > self._max_bytes:
            self._write()
        self._rows.append(row)
        self._bytes += size

    def close(self) -> None:
        """Write the remaining rows; an empty table if there were none."""
        if self._rows or not self._files:
            self._write()

    def _write(self) -> None:
        suffix = f"_{self._files:06d}" if self._files else ""
        self._out.write_table(f"{self._name}{suffix}.parquet", pa.Table.from_pylist(self._rows, self._schema))
        self._rows, self._bytes = [], 0
        self._files += 1


def _rows(unit: Unit, source: SourceConfig, config: IngestConfig, counter: ByteCounter) -> Iterator[Row]:
    """Rows of the documents table, or of the rejects table (with a `reason`)."""
    if isinstance(unit.file, python.Unit):
        records = _python_records(unit.file)
    else:
        file = unit.file
        limits = (config.max_document_bytes, counter, config.max_document_seconds)
        results = read_file(file, source, *limits)
        if not source.where:
            results = _or_no_record(results, file)
        records = ((file.path, record) for record in results)
    name, prefix, kind = collection(unit, source), id_prefix(unit, source), genre(unit, source)
    for path, record in records:
        id = f"{prefix}/{path}#{record.position}"
        yield _row(record, name, kind, id, path, source, config.max_document_bytes)


def _or_no_record(results: Iterator[Record | Failure], file: SourceFile) -> Iterator[Record | Failure]:
    """The results, or one failure for a file without any: a table with its header alone, a dump of talk pages."""
    first = next(results, None)
    if first is None:
        yield Failure(file.rows.position if file.rows else 0, "no_record", f"no record in {file.bytes:,} bytes")
        return
    yield first
    yield from results


def _python_records(unit: python.Unit) -> Iterator[tuple[str, Record | Failure]]:
    for result in python.read_unit(unit):
        if isinstance(result, python.Reject):
            yield unit.path, Failure(-1, "not_python", result.reason)
        else:
            metadata = {"version": result.version}
            yield result.path, Record(0, result.text, language="en", licence=result.licence, metadata=metadata)


def _row(
    record: Record | Failure,
    name: str,
    kind: str,
    id: str,
    path: str,
    source: SourceConfig,
    max_document_bytes: int,
) -> Row:
    document: Row = {
        "id": id,
        "source": name, "path": path, "genre": kind,
    }  # fmt: skip
    if isinstance(record, Failure):
        detail = record.detail and _storable(record.detail)[:MAX_DETAIL_CHARACTERS]
        return reject_row(document, record.reason, size=record.lost_bytes, position=record.position, detail=detail)
    labels = {"source": record.source or name, "genre": record.genre or kind}
    document |= {key: _storable(value) for key, value in labels.items()}
    if problem := _problem(record.text, max_document_bytes):
        return reject_row(document, problem, size=0, position=record.position)
    optional = {
        "language": iso_code(record.language) or source.language, "url": record.url,
        "licence": record.licence or source.licence, "date": record.date,
    }  # fmt: skip
    metadata = ({"id": record.id} if record.id else {}) | dict(record.metadata)
    pairs = [(_storable(key), _storable(value)) for key, value in metadata.items()]
    document |= {key: value and _storable(value) for key, value in optional.items()}
    return {**document, "text": record.text, "metadata": pairs or None}


def _problem(text: str, max_document_bytes: int) -> str | None:
    """Reject reason of a text that cannot be a document; None for others."""
    if not text or text.isspace():
        return "empty_text"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # a lone surrogate, which JSON can escape
        return "not_unicode"
    return "too_long" if size > max_document_bytes else None


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
