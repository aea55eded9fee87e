"""Cleanup of processes that a killed run has left running.

The temporary Prefect server is a child that survives a `kill -9` of its parent, idle but with 200 MB. Every child of a
run inherits an environment variable with the run's process id; the next run ends such processes if their owner is gone.
"""

import contextlib
import os

import psutil

MARK = "HEADRACE_OWNER_PID"


def mark_children() -> None:
    """Pass this process's id to all processes that it starts from now on."""
    os.environ[MARK] = str(os.getpid())


def end_orphans() -> list[int]:
    """Terminate this user's marked processes whose owner is gone; returns their ids."""
    ended = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            owner = process.environ().get(MARK, "")
            if owner.isdecimal() and not psutil.pid_exists(int(owner)):
                process.terminate()
                ended.append(process.pid)
    return ended
