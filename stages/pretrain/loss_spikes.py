"""Loss spikes: skip steps with non-finite or outlying gradients, rewind if the loss stays high.

PaLM (2204.02311, 5.1) rewound about 100 steps at each spike and skipped 200 to 500 batches; OPT (2205.01068, 2.5) and
GLM-130B (2210.02414) did so by hand. Here a single bad step is skipped, and a loss that does not recover by itself
rewinds training.
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

OnSpike = Literal["stop", "skip", "rewind"]
WINDOW = 128
"""Recent steps that a step is compared with."""
MIN_STEPS = 32
"""Steps in the window before any step counts as an outlier."""
PATIENCE = 16
"""Consecutive steps with too high a loss, or without an update, before training rewinds."""
LOSS_DEVIATIONS = 8.0
"""Standard deviations above the mean of the window from which a loss is too high; with Gaussian noise, never."""


class Verdict(Enum):
    """Decision on a step before its update."""

    TAKE = "take"
    SKIP = "skip"
    REWIND = "rewind"
    DIVERGED = "diverged"


@dataclass
class SpikeDetector:
    """Judges each step by the losses and gradient norms of recent steps; the same on every worker."""

    on_spike: OnSpike
    norm_factor: float
    """Multiple of the median gradient norm above which a gradient is an outlier."""
    _losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _norms: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _consecutive_bad: int = 0

    def judge(self, loss: float, gradient_norm: float) -> Verdict:
        """Verdict on a step before its update."""
        finite = math.isfinite(loss) and math.isfinite(gradient_norm)
        if self.on_spike == "stop":
            return Verdict.TAKE if finite else Verdict.DIVERGED
        outlier = not finite or self._is_outlier(gradient_norm)
        high = outlier or self._is_high(loss)
        self._consecutive_bad = self._consecutive_bad + 1 if high else 0
        if self._consecutive_bad >= PATIENCE:
            self._consecutive_bad = 0
            if self.on_spike == "rewind":
                return Verdict.REWIND
            if not finite:
                return Verdict.DIVERGED
            # A lasting change is the new normal.
            self._losses.clear()
            self._norms.clear()
        if not outlier:
            self._norms.append(gradient_norm)
        if not high:
            self._losses.append(loss)
        return Verdict.SKIP if outlier else Verdict.TAKE

    def reset(self) -> None:
        """Clear the window, after a rewind."""
        self._losses.clear()
        self._norms.clear()
        self._consecutive_bad = 0

    def _is_outlier(self, gradient_norm: float) -> bool:
        if len(self._norms) < MIN_STEPS:
            return False
        return gradient_norm > self.norm_factor * statistics.median(self._norms)

    def _is_high(self, loss: float) -> bool:
        if len(self._losses) < MIN_STEPS:
            return False
        return loss > statistics.fmean(self._losses) + LOSS_DEVIATIONS * statistics.stdev(self._losses)
