"""Cleanup of processes that a killed run has left running.

The temporary Prefect server is a child that survives a `kill -9` of its parent, idle but with 200 MB. Every child of a
run inherits an environment variable that names the run's process; the next run ends such processes if their owner is
gone. The name holds boot, pid namespace and start, so that nothing of another container is ended, whose pids mean other
processes, and nothing of an owner whose pid was reused.
"""

import contextlib
import os

import psutil

from infra.processes import ProcessIdentity, pid_namespace, this_process

MARK = "HEADRACE_OWNER"


def prepare_process() -> None:
    """End what killed runs left on this machine, and mark what this process will start, so that it can be ended."""
    end_orphans()
    mark_children()


def mark_children() -> None:
    """Pass this process's identity to all processes that it starts from now on."""
    os.environ[MARK] = mark_of(this_process())


def mark_of(owner: ProcessIdentity) -> str:
    """Value of the environment variable."""
    return f"{owner.boot_id}:{owner.pid_namespace}:{owner.pid}:{owner.started}"


def end_orphans() -> list[int]:
    """Terminate this user's marked processes whose owner is gone; returns their ids."""
    ended = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            owner = _owner(process.environ().get(MARK, ""))
            if owner and owner.is_gone and pid_namespace(process.pid) == owner.pid_namespace:
                process.terminate()
                ended.append(process.pid)
    return ended


def _owner(mark: str) -> ProcessIdentity | None:
    """The process that a mark names; None if it is malformed."""
    values = mark.rsplit(":", 3)
    with contextlib.suppress(ValueError):
        boot_id, namespace, pid, started = values
        return ProcessIdentity("", boot_id, namespace, int(pid), float(started))
    return None
