"""Ownership of a run: of all processes, on any host, one may write for it.

A run's claims are the files `<store>/runs/<run id>.claims/<fencing number>.json`. A number is created exclusively, so
one process wins it, and it is never removed; the highest number is the owner. The owner's heartbeat rewrites
`<number>.beat`, a counter. A claim is free once its run is closed, its process is known to have ended, or its counter
did not change for three beats by the claimant's own clock; clocks of other hosts decide nothing.

An owner that was paused for longer than that may wake up and continue. Everything that it commits (manifests,
checkpoint markers, finished passes, the run's record) is therefore written through a `FencedFolder`, which first checks
that no higher number exists. The check and the write are two requests: a process that is paused exactly between them
still writes that one file. For a manifest nothing is lost then: it is created exclusively, and each owner's files have
names of their own. A checkpoint is verified against its marker before it is restored; the run's record is written
again by the new owner at the end of each stage.

- `RunClaims`: the claims of one run, as a process sees that wants one
- `Claim`: a claim that was won; `check` raises if the run was taken over
- `Heartbeat`: the background thread of the owner
- `FencedFolder`: a folder that only the owner of a claim can write to
"""

import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from data_schemas.errors import FencedError
from infra.processes import ProcessIdentity, submission_id_of_this_process, this_process
from infra.store.filesystem import Folder
from infra.store.provenance import headrace_version

BEAT_SECONDS = 5.0
MISSED_BEATS = 3
"""Beats without a change after which a claim is free."""
POLLS_PER_BEAT = 4
_CLAIM = re.compile(r"(\d{6})\.json")


class Owner(BaseModel):
    """Content of a claim; later versions may add fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    process_started: float
    headrace_version: str
    beat_seconds: float
    claimed: datetime
    """By the owner's clock; for people to read."""
    token: str
    """Distinguishes claims of one process."""
    job: str = ""
    """Submission id of the Ray job in which the process runs; empty outside of jobs."""
    cancels: bool = False
    """The claim was taken to end the run."""

    @classmethod
    def this_process(cls, cancels: bool = False) -> "Owner":
        """This process, now."""
        process = this_process()
        return cls(
            host=process.host, boot_id=process.boot_id, pid_namespace=process.pid_namespace, pid=process.pid,
            process_started=process.started, headrace_version=headrace_version(), beat_seconds=BEAT_SECONDS,
            claimed=datetime.now(UTC), token=uuid.uuid4().hex, job=submission_id_of_this_process(), cancels=cancels,
        )  # fmt: skip

    @property
    def process(self) -> ProcessIdentity:
        """The process that has the claim."""
        return ProcessIdentity(self.host, self.boot_id, self.pid_namespace, self.pid, self.process_started)


@dataclass(frozen=True)
class Claim:
    """A claim that this process, or the driver of this worker, has won; picklable."""

    folder: Folder
    """`<store>/runs/<run id>.claims`."""
    run_id: str
    number: int

    @property
    def beat(self) -> str:
        """Name of the file with the heartbeat's counter."""
        return f"{self.number:06d}.beat"

    @property
    def hold_file(self) -> str:
        """Name of the file with the key that the owner works on."""
        return hold_file(self.number)

    def hold(self, stage: str, key: str) -> None:
        """Record that the owner works in `<store>/<stage>/<key>`, which `headrace gc` then leaves alone.

        Raises:
            FencedError: if the run was taken over.
        """
        self.check()
        self.folder.write(self.hold_file, f"{stage}/{key}".encode())

    def check(self) -> None:
        """Make sure that the run was not taken over; numbers have no gaps, so one read suffices.

        Raises:
            FencedError: if it was, with the new owner; or if a local store was moved or removed, of which whatever is
                written now would make a second one.
        """
        if _read(self.folder, _name(self.number + 1)) is None:
            if self.folder.is_local and not self.folder.exists(_name(self.number)):
                raise FencedError(
                    f"{self.folder.local_path()} is gone: the store of run {self.run_id} was moved or removed while "
                    "it worked; move it back, or name its new place with --store, and the same command resumes"
                )
            return
        owner = RunClaims(self.folder, self.run_id).owner(self.number + 1)
        by = f"{owner.process} at {owner.claimed:%Y-%m-%d %H:%M:%S} UTC" if owner else "another process"
        if owner and owner.cancels:
            raise FencedError(f"run {self.run_id} was cancelled by {by}; finished stages are kept")
        raise FencedError(
            f"run {self.run_id} was taken over by {by}, because this process was silent for {MISSED_BEATS} heartbeats "
            f"or more; this process stops, and what it had not committed is dropped; see: headrace show {self.run_id}"
        )


class RunClaims:
    """The claims of one run."""

    def __init__(self, folder: Folder, run_id: str) -> None:
        """Open `<store>/runs/<run id>.claims`, which need not exist."""
        self.folder, self._run_id = folder, run_id

    def highest(self) -> int:
        """Fencing number of the owner; 0 if the run was never claimed."""
        numbers = (_CLAIM.fullmatch(name) for name in self.folder.names())
        return max((int(match[1]) for match in numbers if match), default=0)

    def owner(self, number: int) -> Owner | None:
        """The process that won a number; None if there is no such claim, or it cannot be read."""
        data = _read(self.folder, _name(number))
        try:
            return None if data is None else Owner.model_validate_json(data)
        except ValidationError:
            return None

    def beat(self, number: int) -> bytes | None:
        """The heartbeat's counter of a claim; None before the first beat."""
        return _read(self.folder, Claim(self.folder, self._run_id, number).beat)

    def take(self, number: int, cancels: bool = False) -> Claim | None:
        """Claim the run under a number that is one above the highest; None if another process was faster."""
        created = self.folder.create_exclusive(_name(number), Owner.this_process(cancels).model_dump_json().encode())
        return Claim(self.folder, self._run_id, number) if created else None

    def is_silent(self, number: int, has_ended: Callable[[], bool] = lambda: False) -> bool:
        """Wait for the heartbeat of a claim: False as soon as it beats, True after three beats without a change.

        Time during which this process was itself paused does not count: the owner may have been paused with it.

        Args:
            number: of the claim.
            has_ended: whether the claim was given up, after which nothing beats and nobody has to wait.
        """
        owner = self.owner(number)
        beat_seconds = owner.beat_seconds if owner else BEAT_SECONDS
        poll_seconds, silent_seconds = beat_seconds / POLLS_PER_BEAT, 0.0
        first, last_poll = self.beat(number), time.monotonic()
        while silent_seconds < MISSED_BEATS * beat_seconds:
            time.sleep(poll_seconds)
            if self.beat(number) != first or has_ended():
                return False
            now = time.monotonic()
            silent_seconds += min(now - last_poll, 2 * poll_seconds)
            last_poll = now
        return True


class Heartbeat:
    """Rewrites the counter of a claim from a daemon thread until `stop`, or until the run is taken over."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._count = 0
        self._stop = threading.Event()
        self._beat_seconds = BEAT_SECONDS
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{claim.run_id}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop beating; does not wait for the thread."""
        self._stop.set()

    def beat(self) -> None:
        """Count one beat.

        Raises:
            FencedError: if the run was taken over.
            OSError: if the store cannot be reached.
        """
        self._claim.check()
        self._count += 1
        self._claim.folder.write(self._claim.beat, str(self._count).encode())

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.beat()
            except FencedError:
                return  # the next commit reports it
            except Exception:
                pass  # the store is out of reach: beats are missed, and the fence decides
            self._stop.wait(self._beat_seconds)


@dataclass(frozen=True)
class FencedFolder(Folder):
    """A folder that can be read by anybody and written while the run was not taken over.

    Raises `FencedError` from everything that changes it; picklable, so that workers on other hosts check too.
    """

    claim: Claim

    def child(self, path: str) -> "FencedFolder":
        """A fenced folder inside this one."""
        return FencedFolder(super().child(path).url, self.claim)

    def create(self, path: str) -> BinaryIO:
        """As in `Folder`; the claim is checked when the file is opened."""
        self.claim.check()
        return super().create(path)

    def write(self, path: str, data: bytes) -> None:
        """As in `Folder`."""
        self.claim.check()
        super().write(path, data)

    def append(self, path: str, data: bytes, sync: bool = False) -> None:
        """As in `Folder`."""
        self.claim.check()
        super().append(path, data, sync)

    def create_exclusive(self, path: str, data: bytes) -> bool:
        """As in `Folder`."""
        self.claim.check()
        return super().create_exclusive(path, data)

    def remove(self, path: str = "") -> None:
        """As in `Folder`."""
        self.claim.check()
        super().remove(path)


def hold_file(number: int) -> str:
    """Name of the file with the key that the owner of a claim works on."""
    return f"{number:06d}.hold"


def _name(number: int) -> str:
    return f"{number:06d}.json"


def _read(folder: Folder, name: str) -> bytes | None:
    try:
        return folder.read(name)
    except FileNotFoundError:
        return None
