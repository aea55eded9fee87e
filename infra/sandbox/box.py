"""One running box: its process, its pipes, read up to a cap, and the watch over what the kernel does not cap."""

import contextlib
import dataclasses
import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.sandbox.bubblewrap import SCRATCH, box_command
from infra.sandbox.limits import Limits, Outcome, SandboxUnavailable, Status
from infra.sandbox.seccomp import filter_program

SCRATCH_ENTRIES = 4096
"""Files, links and folders in the scratch folder: an empty one has no bytes there, but takes a kilobyte of memory."""
GRACE_SECONDS = 0.5


class Stream:
    """A pipe whose far end is in a box."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.data = bytearray()
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def read(self) -> bool:
        """Take what waits; False at the end of the stream."""
        with contextlib.suppress(BlockingIOError):
            piece = os.read(self.reader, 1 << 16)
            self.data += piece
            return bool(piece)
        return True

    @property
    def over(self) -> bool:
        """Whether more came than the cap."""
        return len(self.data) > self.cap

    def text(self) -> str:
        """What was read, up to the cap."""
        return bytes(self.data[: self.cap]).decode("utf-8", "replace")


class Box:
    """A module of `inside` that runs in a box of its own; leaving the context kills it.

    Args:
        module: name of the module.
        arguments: what it is given after the limits.
        files: name in the scratch folder to content.
        keeps: descriptors that the box inherits under their own numbers.
        answers: pipe that is read like standard output, its writer being one of `keeps`.

    The kernel kills the box when the thread that made it ends, so that nothing outlives us.
    """

    def __init__(
        self,
        module: str,
        limits: Limits,
        files: Mapping[str, bytes],
        stdin: bytes = b"",
        arguments: Sequence[str] = (),
        keeps: Sequence[int] = (),
        answers: Stream | None = None,
    ) -> None:
        self.limits = limits
        self.killed_for: Status | None = None
        self.stdout, self.stderr, self.started = (Stream(limits.output_bytes) for _ in range(3))
        self.answers = answers
        self.begun = time.monotonic()
        info = os.dup(self.started.writer)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, info)
            scratch = {name: stack.enter_context(_sealed(content)) for name, content in files.items()}
            seccomp, source = (stack.enter_context(_sealed(content)) for content in (filter_program(), stdin))
            caps = ",".join(f"{name}={value}" for name, value in dataclasses.asdict(limits).items())
            inside = [caps, str(self.started.writer), *arguments]
            self.process = subprocess.Popen(
                box_command(module, inside, limits, scratch, seccomp, info),
                stdin=source,
                stdout=self.stdout.writer,
                stderr=self.stderr.writer,
                env={"PATH": os.environ.get("PATH", os.defpath)},
                pass_fds=[*scratch.values(), seccomp, info, self.started.writer, *keeps],
            )
        self.ended = os.pidfd_open(self.process.pid)
        for stream in self.streams:
            os.close(stream.writer)

    @property
    def streams(self) -> list[Stream]:
        """All pipes that are read."""
        return [self.stdout, self.stderr, self.started, *([self.answers] if self.answers else [])]

    def kill(self, status: Status | None = None) -> None:
        """End everything in the box; its namespace dies with bubblewrap."""
        self.killed_for = self.killed_for or status
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.ended, signal.SIGKILL)

    def end(self) -> None:
        """Let it end by itself, which it does when its requests end, so that the outcome says how; else kill it."""
        try:
            self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill("finished")
            self.process.wait()

    @property
    def has_started(self) -> bool:
        """Whether its interpreter runs."""
        return self.started.data.endswith(b"started")

    def watch(self) -> None:
        """Kill the box when it has passed a limit that the kernel does not hold (threads: it does not for root)."""
        if any(stream.over for stream in self.streams):
            self.kill("output")
        elif found := re.search(rb'"child-pid": (\d+)', self.started.data):
            process = Path("/proc") / found[1].decode()
            with contextlib.suppress(OSError):  # it has just ended
                scratch = os.statvfs(process / "root" / SCRATCH[1:])
                if scratch.f_files - scratch.f_ffree > SCRATCH_ENTRIES:
                    self.kill("files")
            with contextlib.suppress(OSError):
                if _threads(process) > self.limits.processes:
                    self.kill("processes")

    def outcome(self) -> Outcome:
        """How it went, once `supervise` has seen it end.

        Raises:
            SandboxUnavailable: when the box was not built, so that nobody takes that for a wrong answer.
        """
        if not self.has_started:
            raise SandboxUnavailable(f"the sandbox did not start: {self.stderr.text().strip() or 'out of time'}")
        code = self.process.returncode
        code = 128 - code if 128 < code <= 128 + signal.NSIG else code
        stderr = self.stderr.text()
        return Outcome(self._status(code, stderr), code, self.stdout.text(), stderr, time.monotonic() - self.begun)

    def _status(self, code: int, stderr: str) -> Status:
        if self.killed_for:
            return self.killed_for
        if any(stream.over for stream in self.streams):
            return "output"
        if code == -signal.SIGKILL:
            return "time"  # by RLIMIT_CPU, or by its own hand
        if stderr.rstrip().endswith("MemoryError"):
            return "memory"
        return "crashed" if code < 0 else "failed" if code else "finished"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.process.wait()
        for descriptor in (self.ended, *(stream.reader for stream in self.streams)):
            os.close(descriptor)


@contextlib.contextmanager
def _sealed(content: bytes) -> Iterator[int]:
    """A descriptor of a file in memory that nobody can change or let grow."""
    descriptor = os.memfd_create("box", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        yield descriptor
    finally:
        os.close(descriptor)


def _threads(process: Path) -> int:
    """Threads of the program in the box whose first process, its parent, this is."""
    children = (process / "task" / process.name / "children").read_text().split()
    return sum(
        int(line.split()[1]) for child in children for line in _status_lines(child) if line.startswith("Threads")
    )


def _status_lines(process: str) -> list[str]:
    return Path(f"/proc/{process}/status").read_text().splitlines()
