"""How long a phase will still take, by the pace of its latest steps."""

import time
from collections import deque
from collections.abc import Callable

RECENT_ADVANCES = 20


class TimeLeft:
    """Hears a stage's progress; knows the seconds left of its current phase.

    The pace does not count what came before a phase's first advance: starting up takes other times than working, and a
    resumed phase begins with what was done before.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin; `clock` gives seconds."""
        self._clock = clock
        self._phase: str | None = None
        self._total = 0.0
        self._advances: deque[tuple[float, float]] = deque(maxlen=RECENT_ADVANCES)

    def advanced(self, phase: str, done: float, total: float) -> None:
        """`done` of `total` units of a phase are behind us."""
        if phase != self._phase or (self._advances and done < self._advances[-1][1]):
            self._advances.clear()
            self._phase = phase
        self._total = total
        if done > (self._advances[-1][1] if self._advances else 0.0):
            self._advances.append((self._clock(), done))

    @property
    def seconds(self) -> float | None:
        """Seconds left; None before the phase has advanced twice and after its end."""
        if len(self._advances) < 2:
            return None
        (first_time, first_done), (last_time, last_done) = self._advances[0], self._advances[-1]
        if last_done >= self._total or last_time <= first_time:
            return None
        left = (self._total - last_done) * (last_time - first_time) / (last_done - first_done)
        return max(0.0, left - (self._clock() - last_time))
