"""Processes that a killed run left behind.

The temporary Prefect server is a child that outlives a `kill -9` of its parent: idle, but 200 MB each. Every child of
a run inherits a mark with the run's process id; the next run ends marked processes whose owner is gone.
"""

import contextlib
import os

import psutil

MARK = "HEADRACE_OWNER_PID"


def mark_children() -> None:
    """Let every process started from here on carry this process's id."""
    os.environ[MARK] = str(os.getpid())


def end_orphans() -> list[int]:
    """End this user's processes whose marked owner is gone; returns their ids."""
    ended = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            owner = process.environ().get(MARK, "")
            if owner.isdecimal() and not psutil.pid_exists(int(owner)):
                process.terminate()
                ended.append(process.pid)
    return ended
