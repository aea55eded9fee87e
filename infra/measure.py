"""Costs of a stage: seconds per phase, and peak memory of this process and its workers."""

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


class Stopwatch:
    """Seconds per named phase, summed over repeats."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - start


class PeakMemory:
    """Samples the resident memory of this process and its descendants; shared pages count once (PSS)."""

    def __init__(self, interval: float = 2.0) -> None:
        self.peak_bytes = 0
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, family_memory())
            if self._stop.wait(self._interval):
                return


def family_memory() -> int:
    """Current resident memory of this process and its descendants, in bytes."""
    total = 0
    this = psutil.Process()
    for process in [this, *this.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += _memory(process)
    return total


def _memory(process: psutil.Process) -> int:
    memory = process.memory_full_info() if psutil.LINUX else process.memory_info()
    return int(getattr(memory, "pss", memory.rss))
