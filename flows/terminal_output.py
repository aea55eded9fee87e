"""Standard output and error that never end a command: other encodings, a reader that has left, a full disk.

- `make_robust`: replaces `sys.stdout` and `sys.stderr`
"""

import contextlib
import errno
import io
import os
import sys
from typing import Any


class RobustFile(io.FileIO):
    """A descriptor open for writing; what cannot be written is dropped, and `failure` holds the first error."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, or drop if nobody reads any more or the disk is full."""
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError as error:
            self.failure = self.failure or error
            return memoryview(data).nbytes


def make_robust() -> RobustFile:
    """Replace both streams; returns the file below standard output.

    Characters that the encoding lacks are escaped (`\\u2713`). A closed stream is replaced by an empty one.
    """
    sys.stderr, _ = _robust(sys.stderr, 2)
    sys.stdout, file = _robust(sys.stdout, 1)
    return file


def report_failure(file: RobustFile) -> bool:
    """Print on standard error why output is missing; False if it is complete or its reader left (`| head`)."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    if file.failure is None or file.failure.errno == errno.EPIPE:
        return False
    print(f"error: standard output is incomplete: {file.failure.strerror}", file=sys.stderr)
    return True


def _robust(stream: Any, descriptor: int) -> tuple[io.TextIOWrapper, RobustFile]:
    if stream is None:  # closed, as by >&-
        file = RobustFile(os.open(os.devnull, os.O_WRONLY), "w")
        return io.TextIOWrapper(io.BufferedWriter(file), encoding="utf-8"), file
    stream.flush()
    file = RobustFile(descriptor, "w", closefd=False)
    buffered = io.BufferedWriter(file)
    lines = descriptor == 2 or file.isatty()
    return io.TextIOWrapper(buffered, stream.encoding, "backslashreplace", line_buffering=lines), file
