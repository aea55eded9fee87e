"""Run records under `<store>/runs/`, with the artifact that each stage used.

- `RunStore`: finds and saves records
- `claim`, `close`: a record at the start and the end of its process; `is_alive`: whether that process still runs
"""

import os
import secrets
import socket
from datetime import UTC, datetime

import coolname
import psutil

from data_schemas.errors import NotFoundError
from data_schemas.manifest import RunRecord
from infra.store.filesystem import Folder


class RunStore:
    """The run records of one store."""

    def __init__(self, url: str) -> None:
        self.folder = Folder(url).child("runs")

    def all(self) -> list[RunRecord]:
        """Every run, newest first."""
        names = [name for name in self.folder.names() if name.endswith(".json") and not name.startswith(".")]
        records = [RunRecord.model_validate_json(self.folder.read(name)) for name in names]
        return sorted(records, key=lambda record: record.started, reverse=True)

    def get(self, run_id: str) -> RunRecord:
        """A run by its id, a unique prefix of it, or `latest`.

        Raises:
            NotFoundError: if no run or several match; lists the available ones.
        """
        runs = self.all()
        if run_id == "latest" and runs:
            return runs[0]
        matches = [record for record in runs if record.run_id == run_id]
        matches = matches or [record for record in runs if record.run_id.startswith(run_id)]
        if len(matches) == 1:
            return matches[0]
        if len(matches) > 1:
            names = ", ".join(record.run_id for record in matches[:5])
            raise NotFoundError(
                f"{len(matches)} runs in {self.folder.url} begin with {run_id!r}: {names}; give the full id"
            )
        known = ", ".join(record.run_id for record in runs[:5]) or "none yet; begin with: headrace run CONFIG"
        raise NotFoundError(f"no run {run_id!r} in {self.folder.url}; the newest are: {known}")

    def save(self, record: RunRecord) -> None:
        """Write the record atomically."""
        self.folder.write(f"{record.run_id}.json", record.model_dump_json(indent=1).encode())


def new_run_id() -> str:
    """A readable name such as `quiet-otter-3f9a`."""
    return f"{coolname.generate_slug(2)}-{secrets.token_hex(2)}"


def claim(record: RunRecord) -> RunRecord:
    """The record with this process as the one that works on the run."""
    process = psutil.Process()
    return record.model_copy(
        update={
            "status": "running",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": process.create_time(),
            "ended": None,
            "message": None,
        }
    )


def close(record: RunRecord, status: str, message: str | None = None) -> RunRecord:
    """The record of a run that ended."""
    return record.model_copy(update={"status": status, "ended": datetime.now(UTC), "message": message})


def is_alive(record: RunRecord) -> bool:
    """True if the process that claimed the run is alive on this host (same pid and start time)."""
    if record.status != "running" or record.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(record.pid)
        return abs(process.create_time() - record.process_started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
