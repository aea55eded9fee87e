"""A running box: its process, its pipes, read up to a cap, and the limits that the kernel does not enforce."""

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
"""Files, links and folders in the scratch folder: an empty one has no bytes, but takes a kilobyte of memory."""
GRACE_SECONDS = 0.5


class Stream:
    """A pipe whose writer is in a box."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.data = bytearray()
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def read(self) -> bool:
        """Read the available bytes; False at the end of the stream."""
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(self.reader, 1 << 16)
            self.data += chunk
            return bool(chunk)
        return True

    @property
    def over(self) -> bool:
        """Whether the stream exceeds its cap."""
        return len(self.data) > self.cap

    def text(self) -> str:
        """Text read so far, up to the cap."""
        return bytes(self.data[: self.cap]).decode("utf-8", "replace")


class Box:
    """A module of `inside` that runs in a box of its own; leaving the context kills it.

    Args:
        module: name of the module.
        limits: caps on the box.
        files: file name in the scratch folder -> content.
        stdin: standard input.
        arguments: command-line arguments after the limits.
        inherited: descriptors that the box inherits under their own numbers.
        answers: pipe that is read like standard output; its writer is one of `inherited`.

    The kernel kills the box when the thread that started it ends, so that it cannot outlive this process.
    """

    def __init__(
        self,
        module: str,
        limits: Limits,
        files: Mapping[str, bytes],
        stdin: bytes = b"",
        arguments: Sequence[str] = (),
        inherited: Sequence[int] = (),
        answers: Stream | None = None,
    ) -> None:
        self.limits = limits
        self.killed_for: Status | None = None
        self.stdout, self.stderr, self.started = (Stream(limits.output_bytes) for _ in range(3))
        self.answers = answers
        self.start = time.monotonic()
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
                pass_fds=[*scratch.values(), seccomp, info, self.started.writer, *inherited],
            )
        self.ended = os.pidfd_open(self.process.pid)
        for stream in self.streams:
            os.close(stream.writer)

    @property
    def streams(self) -> list[Stream]:
        """All pipes to read."""
        return [self.stdout, self.stderr, self.started, *([self.answers] if self.answers else [])]

    def kill(self, status: Status | None = None) -> None:
        """Kill all processes of the box; its namespace ends with bubblewrap."""
        self.killed_for = self.killed_for or status
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.ended, signal.SIGKILL)

    def end(self) -> None:
        """Wait until it ends by itself after its last request, so that its outcome is known; else kill it."""
        try:
            self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill("finished")
            self.process.wait()

    @property
    def has_started(self) -> bool:
        """Whether its interpreter has started."""
        return self.started.data.endswith(b"started")

    def watch(self) -> None:
        """Kill the box if it exceeds a limit that the kernel does not enforce (for root also the number of threads)."""
        if any(stream.over for stream in self.streams):
            self.kill("output")
        elif match := re.search(rb'"child-pid": (\d+)', self.started.data):
            process = Path("/proc") / match[1].decode()
            with contextlib.suppress(OSError):  # the process has just ended
                scratch = os.statvfs(process / "root" / SCRATCH[1:])
                if scratch.f_files - scratch.f_ffree > SCRATCH_ENTRIES:
                    self.kill("files")
            with contextlib.suppress(OSError):
                if _threads(process) > self.limits.processes:
                    self.kill("processes")

    def outcome(self) -> Outcome:
        """Outcome of the program, after `supervise`.

        Raises:
            SandboxUnavailable: if the box was not built, which must not count as a wrong answer.
        """
        if not self.has_started:
            raise SandboxUnavailable(f"the sandbox did not start: {self.stderr.text().strip() or 'out of time'}")
        code = self.process.returncode
        code = 128 - code if 128 < code <= 128 + signal.NSIG else code
        stderr = self.stderr.text()
        return Outcome(self._status(code, stderr), code, self.stdout.text(), stderr, time.monotonic() - self.start)

    def _status(self, code: int, stderr: str) -> Status:
        if self.killed_for:
            return self.killed_for
        if any(stream.over for stream in self.streams):
            return "output"
        if code == -signal.SIGKILL:
            return "time"  # by RLIMIT_CPU, or it killed itself
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
    """Descriptor of a file in memory that cannot be changed or resized."""
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
    """Number of threads of the program in a box; `process` is the box's first process, the program's parent."""
    children = (process / "task" / process.name / "children").read_text().split()
    return sum(
        int(line.split()[1]) for child in children for line in _status_lines(child) if line.startswith("Threads")
    )


def _status_lines(process: str) -> list[str]:
    return Path(f"/proc/{process}/status").read_text().splitlines()
