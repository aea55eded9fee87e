"""Where the time of training steps goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Section = Literal["data", "forward", "backward", "communication", "optimizer", "checkpoint"]


class StepClock:
    """Adds up wall-clock seconds by section; a section inside another counts for itself alone."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._inside = 0.0
        """Seconds of sections inside the open one."""

    @contextmanager
    def section(self, name: Section) -> Iterator[None]:
        """Time a block. On a GPU it is the time to queue the work, or to wait for a result of it."""
        outer, self._inside = self._inside, 0.0
        begun = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - begun
            self._seconds[name] = self._seconds.get(name, 0.0) + elapsed - self._inside
            self._inside = outer + elapsed

    def take(self) -> dict[str, float]:
        """Seconds since the last call, by section."""
        taken, self._seconds = self._seconds, {}
        return taken
