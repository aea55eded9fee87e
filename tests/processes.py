"""Other processes as tests see them: each may end, or be a zombie, at any moment between two looks."""

from collections.abc import Iterable

import psutil


def command_line(process: psutil.Process) -> list[str]:
    """Words of its command; none if it has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # zombies too
        return []


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended, also if nobody has read its exit status."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def living(pids: Iterable[int]) -> list[psutil.Process]:
    """Those of the processes that still exist."""
    found = []
    for pid in pids:
        try:
            found.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            continue
    return found


def descendants(pid: int) -> list[psutil.Process]:
    """All processes below one, in any depth; none if it has ended."""
    return [child for process in living([pid]) for child in process.children(recursive=True)]
