"""Run records under `<store>/runs/`, with the artifact that each stage used.

- `RunStore`: finds and saves records, starts runs and takes over those whose process is gone
- `close`: a record at the end of its process; `process_of`: the process that works on a run
"""

import contextlib
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import coolname
import psutil

from data_schemas.errors import FencedError, NotFoundError, UnreadableRecordError
from data_schemas.manifest import RunRecord
from infra.processes import ProcessIdentity, boot_id, pid_namespace, start_of
from infra.store.claims import MISSED_BEATS, Claim, Owner, RunClaims
from infra.store.filesystem import Folder
from infra.store.provenance import headrace_version
from infra.store.records import parse_record, report_once
from infra.store.run_index import ENDING, IndexRow, RunIndex, UnreadableRun

FIRST_READ = 8
"""Records that are read at a time when looking for one from the newest on; doubles each time."""
_RUN_ID = re.compile(r"[\w.-]+")
SEQUENCE = "sequence"
"""Folder with a file for each run that ever began, by number; created exclusively and never removed."""
FLOW_RUNS = "flow_runs"
"""Folder with a file for each flow run of the flow engine, which holds the id of its run."""


class RunStore:
    """The run records of one store."""

    def __init__(self, url: str) -> None:
        self.folder = Folder(url).child("runs")

    def all(self) -> list[RunRecord]:
        """Every run that this version can read, newest first.

        The order is that in which the store gave out numbers when the runs began, whatever the clocks of their hosts.
        Runs of versions that took no number come last, by their start.
        """
        return self.listing()[0]

    def listing(self) -> tuple[list[RunRecord], list[UnreadableRun]]:
        """Every run, newest first: those that this version can read, and the others."""
        rows, unreadable = self.index()
        return list(self.newest_first(rows)), unreadable

    def index(self) -> tuple[list[IndexRow], list[UnreadableRun]]:
        """A row per run that this version can read, newest first, and the runs that it cannot read."""
        return RunIndex(self.folder).rows()

    def newest_first(self, rows: Sequence[IndexRow]) -> Iterator[RunRecord]:
        """The records of some rows, in their order, read while they are iterated."""
        start, count = 0, FIRST_READ
        while start < len(rows):
            names = [f"{row.run_id}{ENDING}" for row in rows[start : start + count]]
            for name, data in zip(names, self.folder.read_many(names), strict=True):
                with contextlib.suppress(UnreadableRecordError):  # written by another version since the listing
                    if data is not None:
                        yield parse_record(RunRecord, data, self.folder.full(name))
            start, count = start + count, 2 * count

    def get(self, run_id: str) -> RunRecord:
        """A run by its id, a unique prefix of it, or `latest`.

        Raises:
            NotFoundError: if no run or several match; lists the available ones.
            UnreadableRecordError: if this version cannot read it.
        """
        if run_id != "latest" and _RUN_ID.fullmatch(run_id) and (record := self._read_if_exists(run_id)):
            return record
        rows, unreadable = self.index()
        if run_id == "latest" and rows:
            for newer in unreadable:
                if not newer.sequence or newer.sequence > rows[0].sequence:
                    report_once(f"skipped: {newer.problem}")
            return self._read(rows[0].run_id)
        return self._read(self.matching(run_id, [*(row.run_id for row in rows), *(run.run_id for run in unreadable)]))

    def matching(self, run_id: str, ids: Sequence[str]) -> str:
        """The id that `run_id` is, or that it is the unique beginning of.

        Raises:
            NotFoundError: if none or several match.
        """
        matches = [known for known in ids if known == run_id] or [known for known in ids if known.startswith(run_id)]
        if len(matches) > 1:
            raise NotFoundError(
                f"{len(matches)} runs in {self.folder.url} begin with {run_id!r}: {', '.join(matches[:5])}; "
                "give the full id"
            )
        if matches:
            return matches[0]
        known = ", ".join(ids[:5]) or "none yet; begin with: headrace run CONFIG"
        raise NotFoundError(f"no run {run_id!r} in {self.folder.url}; the newest are: {known}")

    def of_flow_run(self, flow_run: str) -> RunRecord | None:
        """The run that a flow run of the flow engine began; None if there is none, or this version cannot read it."""
        try:
            return self._read(self.folder.read(f"{FLOW_RUNS}/{flow_run}").decode())
        except (FileNotFoundError, UnreadableRecordError):
            return None

    def note_flow_run(self, flow_run: str, run_id: str) -> None:
        """Record that a flow run works on a run."""
        self.folder.write(f"{FLOW_RUNS}/{flow_run}", run_id.encode())

    def save(self, record: RunRecord) -> None:
        """Write the record atomically."""
        self.folder.write(f"{record.run_id}{ENDING}", record.model_dump_json(indent=1).encode())

    def start(self, record: RunRecord) -> tuple[RunRecord, Claim]:
        """Begin a new run, owned by this process; saves the record with its number."""
        claim = self.claims(record.run_id).take(1)
        assert claim is not None, "run ids are unique"
        record = _owned(record.model_copy(update={"sequence": self._next_sequence(record.run_id)}), claim)
        self.save(record)
        return record, claim

    def adopt(self, run_id: str, report: Callable[[str], None]) -> tuple[RunRecord, Claim] | None:
        """Take over an unfinished run, if its owner is gone; one of several processes that try succeeds.

        Args:
            run_id: the run.
            report: receives a line if the owner may be alive, before its heartbeat is waited for, and a line if it is.

        Returns:
            The record as the last owner left it, saved as this process's, and the claim; None if another process owns
            the run or it was finished in the meantime.
        """
        claims = self.claims(run_id)
        record = self._read(run_id)
        number = max(claims.highest(), record.claim)
        if not _is_free(claims, record, number, report):
            report(_still_alive(run_id, _owner_process(claims, number, record)))
            return None
        claim = claims.take(number + 1)
        if claim is None:
            report(_still_alive(run_id, _owner_process(claims, number + 1, record)))
            return None
        record = self._read(run_id)
        if record.status == "finished":
            return None
        record = _owned(record, claim)
        self.save(record)
        return record, claim

    def accept(self, run_id: str, number: int) -> tuple[RunRecord, Claim]:
        """Become the owner of a run under a number that its owner has left to this process.

        Raises:
            FencedError: if another process has the number, or the run is finished.
        """
        claims, claim = self.claims(run_id), None
        if claims.highest() == number - 1:
            claim = claims.take(number)
        if claim is None:
            by = _owner_process(claims, claims.highest(), self._read(run_id)) or "another process"
            raise FencedError(f"run {run_id} was handed to {by} in the meantime; see: headrace attach {run_id}")
        record = self._read(run_id)
        if record.status == "finished":
            raise FencedError(f"run {run_id} was finished in the meantime; see: headrace show {run_id}")
        record = _owned(record, claim)
        self.save(record)
        return record, claim

    def fence(self, run_id: str) -> tuple[RunRecord, Claim]:
        """Take a run from whoever owns it, who can commit nothing from then on; the record is not saved."""
        claims, claim = self.claims(run_id), None
        while claim is None:
            claim = claims.take(max(claims.highest(), self._read(run_id).claim) + 1, cancels=True)
        return _owned(self._read(run_id), claim), claim

    def claims(self, run_id: str) -> RunClaims:
        """The claims of a run."""
        return RunClaims(self.folder.child(f"{run_id}.claims"), run_id)

    def _next_sequence(self, run_id: str) -> int:
        folder = self.folder.child(SEQUENCE)
        number = max((int(name) for name in folder.names() if name.isdecimal()), default=0) + 1
        while not folder.create_exclusive(f"{number:08d}", run_id.encode()):
            number += 1
        return number

    def _read_if_exists(self, run_id: str) -> RunRecord | None:
        try:
            return self._read(run_id)
        except (FileNotFoundError, IsADirectoryError):
            return None

    def _read(self, run_id: str) -> RunRecord:
        return parse_record(RunRecord, self.folder.read(f"{run_id}{ENDING}"), self.folder.full(f"{run_id}{ENDING}"))


def new_run_id() -> str:
    """A readable name such as `quiet-otter-3f9a`."""
    return f"{coolname.generate_slug(2)}-{secrets.token_hex(2)}"


def close(record: RunRecord, status: str, message: str | None = None) -> RunRecord:
    """The record of a run that ended."""
    return record.model_copy(update={"status": status, "ended": datetime.now(UTC), "message": message})


def process_of(record: RunRecord) -> ProcessIdentity:
    """The process that wrote the record.

    Records of versions before fencing numbers hold no boot and no namespace; on a host of this name they are taken as
    those of this process.
    """
    if record.boot_id:
        return ProcessIdentity(record.host, record.boot_id, record.pid_namespace, record.pid, record.process_started)
    if record.host != socket.gethostname():
        return ProcessIdentity(record.host, "", "", record.pid, record.process_started)
    started = record.process_started
    with contextlib.suppress(psutil.Error):
        if abs(psutil.Process(record.pid).create_time() - started) < 1.0:
            started = start_of(record.pid) or started
    return ProcessIdentity(record.host, boot_id(), pid_namespace(), record.pid, started)


def _owned(record: RunRecord, claim: Claim) -> RunRecord:
    owner = Owner.this_process()
    return record.model_copy(
        update={
            "run_record_version": RunRecord.model_fields["run_record_version"].default,
            "headrace_version": headrace_version(),
            "status": "running",
            "claim": claim.number,
            "host": owner.host,
            "boot_id": owner.boot_id,
            "pid_namespace": owner.pid_namespace,
            "pid": owner.pid,
            "process_started": owner.process_started,
            "ended": None,
            "message": None,
        }
    )


def _is_free(claims: RunClaims, record: RunRecord, number: int, report: Callable[[str], None]) -> bool:
    if record.status != "running" and record.claim >= number:
        return True
    process = _owner_process(claims, number, record)
    if process is not None and process.is_gone:
        return True
    if number == 0:  # of a version without heartbeats
        return process is None or not process.is_in_sight
    owner = claims.owner(number)
    seconds = f"{MISSED_BEATS * owner.beat_seconds:g} s" if owner else "a moment"
    report(f"waits up to {seconds} for the heartbeat of run {record.run_id} on {process or 'an unknown host'}")
    return claims.is_silent(number)


def _owner_process(claims: RunClaims, number: int, record: RunRecord) -> ProcessIdentity | None:
    owner = claims.owner(number)
    if owner is not None:
        return owner.process
    return process_of(record) if record.claim == number else None


def _still_alive(run_id: str, process: ProcessIdentity | None) -> str:
    where = process or "an unknown host"
    return f"run {run_id} of the same config is still alive on {where}; this is another run (headrace watch {run_id})"
