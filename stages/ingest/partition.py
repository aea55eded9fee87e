"""One partition of ingest: reads units and writes documents, rejects and their funnel, in files of bounded size."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_schemas.language_codes import iso_code
from data_schemas.tables import reject_row
from infra.workers.partitions import PartitionWriter
from stages.ingest import python_documentation as python
from stages.ingest.config import IngestConfig, SourceConfig
from stages.ingest.file_listing import SourceFile, check_unchanged
from stages.ingest.piece import Piece, Row
from stages.ingest.readers import read_file
from stages.ingest.records import Failure, Record
from stages.ingest.reject_limit import BrokenRecords, is_exceeded
from stages.ingest.streams.bookmarks import Bookmark, Bookmarks
from stages.ingest.streams.byte_streams import ByteCounter
from stages.ingest.units import Unit, collection, genre, id_prefix

MAX_DETAIL_CHARACTERS = 200


def read_partition(
    config: IngestConfig, all_bytes: int, payload: tuple[str, Sequence[Unit]], out: PartitionWriter
) -> None:
    """Read some units, from where an earlier attempt ended.

    Args:
        config: the stage's settings.
        all_bytes: source bytes of all partitions.
        payload: name of the partition, and its units.
        out: receives `documents/`, `rejects/` and `funnel/NAME.parquet`, and `NAME_000001.parquet` and so on if
            there is more text than `partition_bytes`; each of these pieces is committed by itself.

    Raises:
        InputDataError: if this partition alone has more broken records than the whole corpus may have.
    """
    name, units = payload
    assert config.partition_bytes, "resolved by the stage"
    start = _Start.from_json(out.resume(_inputs(config.partition_bytes, units)))
    piece = Piece(out, name, config.partition_bytes, start.pieces)
    counter = ByteCounter()
    counter.passed_over.update(start.passed_over)
    broken, records = start.broken, start.records
    for number, unit in enumerate(units):
        if number >= start.unit:
            source = config.all_sources()[unit.source]
            bookmarks = start.bookmarks if number == start.unit else Bookmarks()
            bookmarks.passed_over = counter.passed_over
            for position, row in _rows(unit, source, config, counter, bookmarks):
                if piece.is_full(row) and _may_end_before(unit, position):
                    if isinstance(unit.file, SourceFile):
                        check_unchanged(unit.file)
                    piece.write()
                    here = Bookmarks(position, bookmarks.before(position))
                    passed_over = bookmarks.passed_over_before(position)
                    out.commit_piece(_Start(piece.number, number, here, records, broken, passed_over).as_json())
                records += 1
                piece.add(row)
                if "reason" in row:
                    broken.add(row)
                    _check_limit(config, records, broken, counter, all_bytes)
        counter.finish(unit.bytes)
    out.count("source_bytes", sum(unit.bytes for unit in units))
    out.count("broken_records", broken.reasons.total())
    out.count("lost_bytes", broken.lost_bytes)
    for kind, count in sorted(counter.passed_over.items()):
        out.count(f"passed_over.{kind}", count)
    piece.write()


@dataclass
class _Start:
    """Where reading begins, and what was read before."""

    pieces: int = 0
    unit: int = 0
    bookmarks: Bookmarks = field(default_factory=Bookmarks)
    records: int = 0
    broken: BrokenRecords = field(default_factory=BrokenRecords)
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Counts before the bookmark, or before the unit if there is none."""

    def as_json(self) -> dict[str, Any]:
        bookmark = self.bookmarks.start.as_json() if self.bookmarks.start else None
        numbers = {"pieces": self.pieces, "unit": self.unit, "position": self.bookmarks.first, "records": self.records}
        passed_over = dict(self.passed_over)
        return {**numbers, "bookmark": bookmark, "broken": self.broken.state(), "passed_over": passed_over}

    @classmethod
    def from_json(cls, state: Mapping[str, Any] | None) -> "_Start":
        if state is None:
            return cls()
        bookmark = Bookmark.from_json(state["bookmark"]) if state["bookmark"] else None
        bookmarks = Bookmarks(state["position"], bookmark)
        broken = BrokenRecords(state["broken"])
        return cls(state["pieces"], state["unit"], bookmarks, state["records"], broken, state["passed_over"])


def _inputs(partition_bytes: int, units: Sequence[Unit]) -> str:
    """Digest of what the pieces of a partition depend on, besides the key of the artifact."""
    rows = [(unit.source, unit.file.path, unit.bytes, getattr(unit.file, "rows", None)) for unit in units]
    return hashlib.sha256(json.dumps([partition_bytes, rows]).encode()).hexdigest()


def _may_end_before(unit: Unit, position: int) -> bool:
    """Whether reading can begin at this record: modules of Python are read as a whole."""
    return isinstance(unit.file, SourceFile) or position == 0


def _check_limit(
    config: IngestConfig, records: int, broken: BrokenRecords, counter: ByteCounter, all_bytes: int
) -> None:
    share_read = counter.processed / all_bytes if all_bytes else 0.0  # web servers may not report sizes
    share_lost = broken.lost_bytes / all_bytes if all_bytes else 0.0
    total = broken.reasons.total()
    if is_exceeded(config, records=records, broken=total, share_read=share_read, share_lost=share_lost):
        raise broken.error(config, records, all_bytes)


def _rows(
    unit: Unit, source: SourceConfig, config: IngestConfig, counter: ByteCounter, bookmarks: Bookmarks
) -> Iterator[tuple[int, Row]]:
    """Position in the unit, and row of the documents table or of the rejects table (with a `reason`)."""
    if isinstance(unit.file, python.Unit):
        records = _python_records(unit.file)
    else:
        file = unit.file
        results = read_file(file, source, config.max_document_bytes, counter, config.max_document_seconds, bookmarks)
        if not source.where and not bookmarks.first:
            results = _or_no_record(results, file)
        records = ((record.position, file.path, record) for record in results)
    name, prefix, kind = collection(unit, source), id_prefix(unit, source), genre(unit, source)
    for position, path, record in records:
        id = f"{prefix}/{path}#{record.position}"
        yield position, _row(record, name, kind, id, path, source, config.max_document_bytes)


def _or_no_record(results: Iterator[Record | Failure], file: SourceFile) -> Iterator[Record | Failure]:
    """The results, or one failure for a file without any: a table with its header alone, a dump of talk pages."""
    first = next(results, None)
    if first is None:
        yield Failure(file.rows.position if file.rows else 0, "no_record", f"no record in {file.bytes:,} bytes")
        return
    yield first
    yield from results


def _python_records(unit: python.Unit) -> Iterator[tuple[int, str, Record | Failure]]:
    for number, result in enumerate(python.read_unit(unit)):
        if isinstance(result, python.Reject):
            yield number, unit.path, Failure(-1, "not_python", result.reason)
        else:
            metadata = {"version": result.version}
            record = Record(0, result.text, language="en", licence=result.licence, metadata=metadata)
            yield number, result.path, record


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
