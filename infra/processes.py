"""Identity of a process, which processes in other containers and on other hosts can read and judge.

- `ProcessIdentity`: host, boot, pid namespace, pid and start; `this_process`
- `boot_id`, `pid_namespace`: where a pid is valid
- `submission_id_of_this_process`: the Ray job in which this process is the driver
"""

import functools
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

ENDED_STATES = ("Z", "X")
ENDED = -1.0
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable by which Ray gives the driver of a job its metadata."""


@dataclass(frozen=True)
class ProcessIdentity:
    """Names one process for good: a pid alone is reused, and means another process in another namespace."""

    host: str
    boot_id: str
    """Changes when the machine starts; equal in all containers of a machine."""
    pid_namespace: str
    """Inode of the pid namespace; empty on systems without them."""
    pid: int
    started: float
    """Clock ticks from boot to the start of the process; on systems without /proc seconds since 1970."""

    def __str__(self) -> str:
        return f"{self.host} (pid {self.pid})"

    @property
    def is_in_sight(self) -> bool:
        """True if its pid means the same process here: same boot, same pid namespace."""
        return (self.boot_id, self.pid_namespace) == (boot_id(), pid_namespace())

    @property
    def is_gone(self) -> bool:
        """True if the process is known to have ended; False if it is alive, hidden or out of sight."""
        if not self.is_in_sight:
            return False
        return not _exists(self.pid) or start_of(self.pid) not in (None, self.started)


def this_process() -> ProcessIdentity:
    """Identity of this process."""
    started = start_of("self")
    assert started is not None
    return ProcessIdentity(socket.gethostname(), boot_id(), pid_namespace(), os.getpid(), started)


def submission_id_of_this_process() -> str:
    """Submission id of the Ray job whose driver this process is; empty outside of jobs."""
    try:
        return str(json.loads(os.environ.get(JOB_CONFIG, "{}"))["metadata"]["job_submission_id"])
    except (ValueError, KeyError, TypeError):
        return ""


@functools.cache
def boot_id() -> str:
    """Identity of the machine's current boot; without /proc the host and its boot time."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{socket.gethostname()}-{psutil.boot_time():.0f}"


def pid_namespace(pid: int | str = "self") -> str:
    """Inode of a process's pid namespace; empty if it cannot be read or there are none."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").stat().st_ino)
    except OSError:
        return ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def start_of(pid: int | Literal["self"]) -> float | None:
    """Start of a process, `ENDED` for one that only waits for its parent; None if it is hidden.

    /proc may be that of another pid namespace, as after `unshare --pid` without `--mount-proc`; pids differ there.
    """
    proc = Path("/proc")
    if not (proc / "self").exists():
        return _start_without_proc(os.getpid() if pid == "self" else pid)
    if pid != "self" and str((proc / "self").readlink()) != str(os.getpid()):
        return None
    try:
        state, *values = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return ENDED if state in ENDED_STATES else float(values[18])


def _start_without_proc(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return ENDED if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None
