"""Stop request to the workers of a run, on any machine: a file in the run's work folder.

On preemption, the driver receives SIGTERM and writes the file; the workers then save a checkpoint and exit. Ray's
workers cannot handle signals themselves because they train in a thread.
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
    """Stop request of a run, polled by the training process."""

    def __init__(self, work: Folder) -> None:
        self._work = work
        self._requested = False
        self._last_poll = 0.0

    def __call__(self) -> bool:
        """True once a stop was requested; polls at most once a second."""
        now = time.monotonic()
        if not self._requested and now - self._last_poll >= POLL_SECONDS:
            self._last_poll = now
            self._requested = self._work.exists(REQUEST)
        return self._requested


@contextmanager
def stop_on_sigterm(work: Folder) -> Iterator[None]:
    """Turn the first SIGTERM during the block into a stop request; the second has its usual effect."""
    work.remove(REQUEST)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGTERM)

    def request_stop(number: int, frame: FrameType | None) -> None:
        work.write(REQUEST, b"SIGTERM")
        signal.signal(signal.SIGTERM, previous)

    signal.signal(signal.SIGTERM, request_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        work.remove(REQUEST)
