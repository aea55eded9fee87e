"""Resource limits of a program in the sandbox, and its outcome."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from data_schemas.errors import ConfigError, EnvironmentProblem

Status = Literal["finished", "failed", "crashed", "time", "memory", "output", "processes", "files"]


class SandboxUnavailable(EnvironmentProblem):
    """This machine cannot build the box; nothing was run."""


@dataclass(frozen=True)
class Limits:
    """Caps on one box; each is a positive whole number.

    A box has only one process, since fork is forbidden; `processes` therefore counts the threads of that process.
    """

    cpu_seconds: int = 10
    """Total processor time of all threads; the kernel then kills the process, which cannot catch it."""
    wall_seconds: int = 30
    memory_bytes: int = 512 << 20
    """Address space; the scratch folder adds up to `file_bytes` of memory."""
    processes: int = 16
    output_bytes: int = 1 << 20
    """Standard output, standard error and answers to a grader, each."""
    file_bytes: int = 16 << 20
    """Total size of the files in the scratch folder."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"sandbox limit {field.name} is {value!r}; it must be a whole number of at least 1")


@dataclass(frozen=True)
class Outcome:
    """Result of a box. It does not prove that a program is right: the program can write and return anything."""

    status: Status
    """finished: exit code 0; failed: another exit code; crashed: a signal; otherwise the limit that was exceeded
    (a program that kills itself with SIGKILL counts as time, one that fails after printing "MemoryError" as memory)."""
    exit_code: int
    """Negative for a signal."""
    stdout: str
    stderr: str
    seconds: float
    """Wall-clock time, including the start of the box."""
