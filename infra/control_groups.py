"""Limits of this process's control groups (Linux, versions 1 and 2): those of a container, a batch job or a service.

- `cpu_count`: processors that this process may keep busy; `cpu_quota`: the limit alone
- `limit_threads`: hands that number to numerical libraries
- `memory_limit`, `total_memory`, `available_memory`: bytes; `task_limit`: processes and threads

A group is bound by its own limits and by those of all groups above it.
"""

import math
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")


def cpu_count() -> int:
    """Processors that this process may use: its affinity, or its quota rounded up if that is less."""
    quota = cpu_quota()
    return _affinity() if quota is None else min(_affinity(), max(1, math.ceil(quota)))


def limit_threads() -> None:
    """Let numerical libraries that are loaded later start as many threads as the quota has processors for.

    By themselves they start one per processor of the affinity, and all of them wait whenever the quota is used up.
    """
    if (count := cpu_count()) < _affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(count))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota() -> float | None:
    """Processors whose time this process may use, such as 0.5; None if nothing limits it."""
    return min(filter(None, (group.cpu_quota() for group in _groups("cpu"))), default=None)


def memory_limit() -> int | None:
    """Bytes that this process and the others of its groups may use; None if nothing limits them."""
    return min((room.limit for room in _rooms()), default=None)


def total_memory() -> int:
    """Bytes of the machine, or of the tightest group if that has less."""
    total, _ = _machine_memory()
    return min(total, memory_limit() or total)


def available_memory() -> int:
    """Bytes that this process can still take before the machine or a group runs out."""
    _, available = _machine_memory()
    return min([available, *(room.left for room in _rooms())])


def task_limit() -> int | None:
    """Processes and threads that this process and the others of its groups, or of its user, may have together."""
    limits = [group.tasks() for group in _groups("pids")]
    if os.geteuid():  # root is not bound by it
        limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        limits.append(None if limit == resource.RLIM_INFINITY else limit)
    return min(filter(None, limits), default=None)


@dataclass(frozen=True)
class _Room:
    limit: int
    left: int


@dataclass(frozen=True)
class _Group:
    folder: Path
    version: int

    def cpu_quota(self) -> float | None:
        if self.version == 2:
            quota, _, period = self._text("cpu.max").partition(" ")
        else:
            quota, period = self._text("cpu.cfs_quota_us"), self._text("cpu.cfs_period_us")
        microseconds, each = _number(quota), _number(period)
        return round(microseconds / each, 2) if microseconds and each else None

    def tasks(self) -> int | None:
        return _number(self._text("pids.max"))

    def memory(self) -> _Room | None:
        names = ("memory.max", "memory.current", "inactive_file")
        if self.version == 1:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        limit, used = _number(self._text(names[0])), _number(self._text(names[1])) or 0
        if limit is None or limit >= _machine_memory()[0]:
            return None
        statistics = dict(line.split(maxsplit=1) for line in self._text("memory.stat").splitlines() if " " in line)
        cached = _number(statistics.get(names[2], "")) or 0  # files, which the kernel drops when it needs room
        return _Room(limit, max(0, limit - max(0, used - cached)))

    def _text(self, name: str) -> str:
        try:
            return (self.folder / name).read_text().strip()
        except OSError:
            return ""


def _machine_memory() -> tuple[int, int]:
    """Bytes of the machine, and those available."""
    import psutil  # here: most commands need processors only

    memory = psutil.virtual_memory()
    return memory.total, memory.available


def _rooms() -> list[_Room]:
    return [room for room in (group.memory() for group in _groups("memory")) if room is not None]


def _groups(controller: str) -> Iterator[_Group]:
    """Groups of this process that can limit a resource, each with those above it that are visible here."""
    paths = _paths()
    for root, mount, version, controllers in _mounts():
        path = paths.get("" if version == 2 else controller)
        if path is None or (version == 1 and controller not in controllers):
            continue
        below = PurePosixPath(path)
        # A container's own group is often mounted as the root, whatever path the process has.
        parts = below.relative_to(root).parts if below.is_relative_to(root) and ".." not in below.parts else ()
        for depth in range(len(parts), -1, -1):
            yield _Group(mount.joinpath(*parts[:depth]), version)


def _paths() -> dict[str, str]:
    """Path of the group by controller of version 1; that of version 2 has the empty name."""
    lines = (line.split(":", 2) for line in _lines("cgroup"))
    return {name: line[2] for line in lines if len(line) == 3 for name in line[1].split(",")}


def _mounts() -> Iterator[tuple[str, Path, int, list[str]]]:
    """Root within the hierarchy, mount point, version and options of each mounted hierarchy."""
    for line in _lines("mountinfo"):
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split() or [""]
        if kind in ("cgroup", "cgroup2") and len(fields) > 4 and rest:
            yield fields[3], Path(fields[4].replace("\\040", " ")), 2 if kind == "cgroup2" else 1, rest[-1].split(",")


def _lines(name: str) -> list[str]:
    try:
        return (PROC / name).read_text().splitlines()
    except OSError:
        return []


def _number(text: str) -> int | None:
    """A positive number; None for "max", -1 and what is no number."""
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None
