"""What a program in the sandbox may use, and what became of it."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from data_schemas.errors import ConfigError, EnvironmentProblem

Status = Literal["finished", "failed", "crashed", "time", "memory", "output", "processes", "files"]


class SandboxUnavailable(EnvironmentProblem):
    """This machine cannot build the box; nothing is run outside it instead."""


@dataclass(frozen=True)
class Limits:
    """Caps on one box; each is a positive whole number.

    There is only ever one process in a box: fork is closed. `processes` therefore counts the threads of that process.
    """

    cpu_seconds: int = 10
    """Processor time of all threads together; the kernel then kills the process, which cannot catch it."""
    wall_seconds: int = 30
    memory_bytes: int = 512 << 20
    """Address space; the scratch folder is memory too and counts beside it, up to `file_bytes`."""
    processes: int = 16
    output_bytes: int = 1 << 20
    """Of standard output, of standard error and of what a grader is answered, each."""
    file_bytes: int = 16 << 20
    """All files of the scratch folder together."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"sandbox limit {field.name} is {value!r}; it must be a whole number of at least 1")


@dataclass(frozen=True)
class Outcome:
    """How a box ended. Nothing in it proves that a program is right: the program can write and return what it likes."""

    status: Status
    """finished: exit code 0; failed: another exit code; crashed: a signal; otherwise the limit that was passed
    (a program that kills itself with SIGKILL reads as time, one that prints "MemoryError" last and fails as memory)."""
    exit_code: int
    """Negative for a signal."""
    stdout: str
    stderr: str
    seconds: float
    """Wall-clock time with the start of the box."""
