"""Index of a store's runs: their order, configs and requests, without reading thousands of records.

`<store>/runs/index.json.gz` is a cache of a row per run record, with the version of the record that the row was made
from. One listing of the folder shows which records have another version now; only those are read. Any process may write
the index again, the last one wins, and it may be deleted: nothing depends on it but time.

- `IndexRow`: the fields by which runs are ordered and looked up
- `RunIndex`: rows of all records, newest first
"""

import contextlib
import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from data_schemas.errors import UnreadableRecordError
from data_schemas.manifest import RUN_RECORD_VERSION, RunRecord
from infra.store.filesystem import Folder
from infra.store.records import parse_record, readable_fields, written_by

ENDING = ".json"
INDEX = "index.json.gz"
INDEX_VERSION = 1
MAX_CHANGED = 32
"""Records that changed since the index was written, up to which it is not written again."""


@dataclass(frozen=True)
class UnreadableRun:
    """A record that this version cannot read, with the fields that could be read all the same."""

    run_id: str
    written_by: str
    problem: str
    sequence: int


class IndexRow(NamedTuple):
    """A run, as far as it is ordered and looked up."""

    run_id: str
    record_version: str
    """Version of the record's file."""
    sequence: int
    started: str
    """ISO 8601, UTC."""
    config_name: str
    config_digest: str
    base_run: str | None
    forced: str | None

    @classmethod
    def of(cls, record: RunRecord, version: str) -> "IndexRow":
        """The row of a record."""
        return cls(
            record.run_id, version, record.sequence, record.started.isoformat(), record.config_name,
            record.config_digest, record.base_run, record.forced,
        )  # fmt: skip

    @property
    def age(self) -> tuple[int, str, str]:
        """Order of runs; see `RunStore.all`."""
        return self.sequence, self.started, self.run_id


class RunIndex:
    """The rows of one folder of run records."""

    def __init__(self, folder: Folder) -> None:
        """Open the index of `<store>/runs`, which need not exist."""
        self._folder = folder

    def rows(self) -> tuple[list[IndexRow], list[UnreadableRun]]:
        """A row per record, newest first, and the records that this version cannot read, newest first."""
        versions = self._versions()
        cached = self._cached() if len(versions) > MAX_CHANGED else {}
        rows = {run_id: row for run_id, row in cached.items() if versions.get(run_id) == row.record_version}
        changed = sorted(versions.keys() - rows.keys())
        unreadable = []
        for run_id, data in zip(changed, self._folder.read_many([f"{name}{ENDING}" for name in changed]), strict=True):
            if data is None:
                continue
            try:
                location = self._folder.full(f"{run_id}{ENDING}")
                record = parse_record(RunRecord, data, location)
                if record.run_id == run_id:
                    rows[run_id] = IndexRow.of(record, versions[run_id])
                elif record.run_id not in versions:  # else a copy, as tools that synchronize folders leave behind
                    raise UnreadableRecordError(
                        f"{location} holds the record of run {record.run_id}; rename it to {record.run_id}{ENDING}"
                    )
            except UnreadableRecordError as error:
                unreadable.append(unreadable_run(run_id, data, error))
        if len(changed) - len(unreadable) > MAX_CHANGED:
            self._write(rows)
        unreadable.sort(key=lambda run: (run.sequence, run.run_id), reverse=True)
        return sorted(rows.values(), key=lambda row: row.age, reverse=True), unreadable

    def _versions(self) -> dict[str, str]:
        names = self._folder.versions(ENDING)
        return {name.removesuffix(ENDING): version for name, version in names.items() if not name.startswith(".")}

    def _cached(self) -> dict[str, IndexRow]:
        """Rows as some process wrote them; none if there is no index of this version.

        A newer version also has rows of records that this version cannot read.
        """
        try:
            content: dict[str, Any] = json.loads(gzip.decompress(self._folder.read(INDEX)))
            if (content["index_version"], content["run_record_version"]) != (INDEX_VERSION, RUN_RECORD_VERSION):
                return {}
            return {row[0]: IndexRow(*row) for row in content["rows"]}
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, IndexError):
            return {}

    def _write(self, rows: Mapping[str, IndexRow]) -> None:
        content = json.dumps(
            {"index_version": INDEX_VERSION, "run_record_version": RUN_RECORD_VERSION, "rows": list(rows.values())},
            separators=(",", ":"),
        )
        with contextlib.suppress(Exception):  # a store that may only be read
            self._folder.write(INDEX, gzip.compress(content.encode(), 1, mtime=0))


def unreadable_run(run_id: str, data: bytes, error: UnreadableRecordError) -> UnreadableRun:
    """Describe a record that cannot be read, by the fields that can."""
    fields = readable_fields(data)
    sequence = fields.get("sequence")
    return UnreadableRun(run_id, written_by(fields), str(error), sequence if isinstance(sequence, int) else 0)
