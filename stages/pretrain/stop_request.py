"""A wish to stop that reaches workers wherever they run: a file in the run's work folder.

A machine that is about to be taken away sends SIGTERM to the process that drives the run; its workers then save a
checkpoint and end. Ray's workers cannot catch signals themselves: they train in a thread.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from infra.store.filesystem import Folder

REQUEST = "stop-request"
POLL_SECONDS = 1.0


class StopRequest:
    """As the process sees it that may stop."""

    def __init__(self, work: Folder) -> None:
        self._work = work
        self._asked = False
        self._looked = 0.0

    def __call__(self) -> bool:
        """True once somebody has asked; looks at most once a second."""
        now = time.monotonic()
        if not self._asked and now - self._looked >= POLL_SECONDS:
            self._looked = now
            self._asked = self._work.exists(REQUEST)
        return self._asked


@contextmanager
def stop_on_sigterm(work: Folder) -> Iterator[None]:
    """While the block runs, the first SIGTERM asks for a stop, and a second one kills as ever."""
    work.remove(REQUEST)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)

    def ask(number: int, frame: FrameType | None) -> None:
        work.write(REQUEST, b"SIGTERM")
        signal.signal(signal.SIGTERM, before)

    signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        work.remove(REQUEST)
