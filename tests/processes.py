"""Other processes, as tests see them: each may end, or be a zombie, at any moment between two looks.

- `wait_for`: waits for a state; a deadline costs only when it fails, so it is long
- `command_line`, `is_gone`, `living`, `children`, `descendants`, `working`: processes, some of which have ended
- `free_ports`: ports that nothing else takes before they are used
"""

import random
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import psutil

WAIT_SECONDS = 400.0
PORTS = range(20_000, 65_536)
"""Above those that Ray gives to its workers."""
USUAL_RANGE = (32_768, 60_999)
"""From which the kernel takes ports, if it does not say."""
ATTEMPTS = 1_000


def wait_for(condition: Callable[[], object], seconds: float = WAIT_SECONDS, poll_seconds: float = 0.1) -> None:
    """Wait until a condition is true.

    Raises:
        AssertionError: if it is not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition was not met in {seconds:g} s"
        time.sleep(poll_seconds)


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


def children(pid: int, recursive: bool = False) -> list[psutil.Process]:
    """Processes that one has started; none if it has ended."""
    try:
        return psutil.Process(pid).children(recursive)
    except psutil.NoSuchProcess:
        return []


def descendants(pid: int) -> list[psutil.Process]:
    """All processes below one, in any depth; none if it has ended."""
    return children(pid, recursive=True)


def working(pid: int, matches: Callable[[list[str]], bool]) -> list[psutil.Process]:
    """Processes below one whose command line matches, without those that one of them has started.

    Between fork and exec, a process that one of them starts has its command line.
    """
    found = {child.pid: child for child in descendants(pid) if matches(command_line(child))}
    return [child for child in found.values() if _parent(child) not in found]


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return 0


def free_ports(count: int) -> list[int]:
    """Free ports of 127.0.0.1, outside of the range from which the kernel gives ports to others meanwhile."""
    try:
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except OSError:
        low, high = USUAL_RANGE
    candidates = [port for port in PORTS if not low <= port <= high] or list(PORTS)
    found: list[int] = []
    with ExitStack() as stack:
        for port in random.sample(candidates, min(ATTEMPTS, len(candidates))):
            listener = stack.enter_context(socket.socket())
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise AssertionError(f"no {count} ports are free")
