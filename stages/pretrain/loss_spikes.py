"""Steps that would do harm: gradients that are not finite or far out of the ordinary, and losses that stay high.

PaLM (2204.02311, 5.1) went back about 100 steps at each spike and left 200 to 500 batches out; OPT (2205.01068, 2.5)
and GLM-130B (2210.02414) did likewise by hand. Here one bad step is skipped as it comes, and a loss that does not come
down by itself sends training back.
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

OnSpike = Literal["stop", "skip", "rewind"]
WINDOW = 128
"""Steps that tell what is ordinary."""
LEARNED_AFTER = 32
"""Steps before anything is called out of the ordinary."""
PATIENCE = 16
"""Steps in a row with a loss that is too high, or without an update, before training goes back."""
LOSS_DEVIATIONS = 8.0
"""Standard deviations over the mean of the window from which a loss is too high; with Gaussian noise, never."""


class Verdict(Enum):
    """What to do with a step whose gradient is there."""

    TAKE = "take"
    SKIP = "skip"
    REWIND = "rewind"
    DIVERGED = "diverged"


@dataclass
class SpikeWatch:
    """Judges each step by the loss and gradient norm of those before it; the same on every worker."""

    on_spike: OnSpike
    norm_factor: float
    """Times the median gradient norm from which a gradient is out of the ordinary."""
    _losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _norms: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _bad_in_a_row: int = 0

    def judge(self, loss: float, gradient_norm: float) -> Verdict:
        """Of one step, before its update."""
        finite = math.isfinite(loss) and math.isfinite(gradient_norm)
        if self.on_spike == "stop":
            return Verdict.TAKE if finite else Verdict.DIVERGED
        wild = not finite or self._is_wild(gradient_norm)
        high = wild or self._is_high(loss)
        self._bad_in_a_row = self._bad_in_a_row + 1 if high else 0
        if self._bad_in_a_row >= PATIENCE:
            self._bad_in_a_row = 0
            if self.on_spike == "rewind":
                return Verdict.REWIND
            if not finite:
                return Verdict.DIVERGED
            # A lasting change is the new ordinary.
            self._losses.clear()
            self._norms.clear()
        if not wild:
            self._norms.append(gradient_norm)
        if not high:
            self._losses.append(loss)
        return Verdict.SKIP if wild else Verdict.TAKE

    def forget(self) -> None:
        """Learn anew, after going back."""
        self._losses.clear()
        self._norms.clear()
        self._bad_in_a_row = 0

    def _is_wild(self, gradient_norm: float) -> bool:
        if len(self._norms) < LEARNED_AFTER:
            return False
        return gradient_norm > self.norm_factor * statistics.median(self._norms)

    def _is_high(self, loss: float) -> bool:
        if len(self._losses) < LEARNED_AFTER:
            return False
        return loss > statistics.fmean(self._losses) + LOSS_DEVIATIONS * statistics.stdev(self._losses)
