"""A chain of programs that answers each text on its own, kept alive between batches (Apertium's null flush).

- `NullFlushPipe`: texts in, outputs out, in order; hangs and crashes end one text, not the batch
- `PipeError`: why a text has no output

Every text is followed by a marker with its number, which the programs pass on unchanged, and a NUL, at which they
flush. An output counts only with the marker of its text: a program that swallowed or invented a NUL is noticed.
"""

import contextlib
import os
import select
import subprocess
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from data_schemas.errors import EnvironmentProblem

CHUNK = 1 << 16


@dataclass(frozen=True)
class PipeError:
    """No output for a text."""

    reason: str


class NullFlushPipe:
    """Programs in a row, each reading what the one before it writes."""

    def __init__(self, commands: Sequence[Sequence[str]], timeout_seconds: float) -> None:
        """Describe the chain; it starts with the first batch.

        Args:
            commands: program and arguments of each process.
            timeout_seconds: time without any output after which the programs are killed.
        """
        self._commands, self._timeout = commands, timeout_seconds
        self._own()

    def outputs(self, texts: Sequence[str]) -> list[str | PipeError]:
        """Output of each text, in order.

        Args:
            texts: without NULs; escaped as the programs want it.

        Raises:
            EnvironmentProblem: if the programs do not answer at all.
        """
        results: list[str | PipeError] = []
        while len(results) < len(texts):
            self._start()
            answered, error = self._exchange(texts[len(results) :])
            results += answered
            if error:
                self.close()
                results.append(error)
        return results

    def close(self) -> None:
        """End the programs; the next batch starts them again."""
        if self._owner == os.getpid():
            _kill(self._processes, self._owner)
        else:
            self._own()

    def _own(self) -> None:
        """Begin without programs; those of a process that forked this one stay its own."""
        self._processes: list[subprocess.Popen[bytes]] = []
        self._owner = os.getpid()
        self._stop = weakref.finalize(self, _kill, self._processes, self._owner)

    def _start(self) -> None:
        """Start the programs and see that they answer, unless they run."""
        if (
            self._owner == os.getpid()
            and self._processes
            and all(process.poll() is None for process in self._processes)
        ):
            return
        self.close()
        source: IO[bytes] | int = subprocess.PIPE
        for command in self._commands:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=source,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=_environment(),
                    bufsize=0,
                )
            except OSError as error:
                self.close()
                raise EnvironmentProblem(f"{command[0]} cannot be started: {error}; install it again") from None
            if not isinstance(source, int):
                source.close()  # belongs to the new process now
            self._processes.append(process)
            assert process.stdout
            source = process.stdout
        _, silence = self._exchange(["."])
        if silence:
            self.close()
            raise EnvironmentProblem(
                f"{self._commands[0][0]} and the programs after it do not answer: {silence.reason}; install them "
                "again, or raise timeout_seconds"
            )

    def _exchange(self, texts: Sequence[str]) -> tuple[list[str | PipeError], PipeError | None]:
        """Outputs up to the first text without one, and why it has none."""
        first, last = self._processes[0].stdin, self._processes[-1].stdout
        assert first and last
        unsent = memoryview("".join(f"{text}[{index}]\0" for index, text in enumerate(texts)).encode())
        os.set_blocking(first.fileno(), False)
        outputs: list[str | PipeError] = []
        received = b""
        while len(outputs) < len(texts):
            readable, writable, _ = select.select([last], [first] if unsent else [], [], self._timeout)
            if not readable and not writable:
                return outputs, PipeError("the engine hung")
            if writable:
                try:
                    unsent = unsent[os.write(first.fileno(), unsent[:CHUNK]) :]
                except BlockingIOError:
                    pass
                except BrokenPipeError:
                    unsent = unsent[:0]  # what was answered before is still to be read
            if readable:
                data = os.read(last.fileno(), CHUNK)
                if not data:
                    return outputs, PipeError("the engine crashed")
                *frames, received = (received + data).split(b"\0")
                for frame in frames:
                    text, marker, rest = frame.rpartition(b"[%d]" % len(outputs))
                    if not marker or rest or len(outputs) == len(texts):
                        return outputs, PipeError("the engine's output is out of step")
                    outputs.append(text.decode("utf-8", "replace"))
        return outputs, None


def _environment() -> dict[str, str]:
    """A locale in which programs read UTF-8, whatever that of the user is."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("LC_")}, "LC_ALL": "C.UTF-8"}


def _kill(processes: list[subprocess.Popen[bytes]], owner: int) -> None:
    if owner != os.getpid():
        return
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
    processes.clear()
