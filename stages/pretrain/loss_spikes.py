"""Loss spikes: skip steps with non-finite or outlying gradients, rewind if the loss stays high.

PaLM (2204.02311, 5.1) rewound about 100 steps at each spike and skipped 200 to 500 batches; OPT (2205.01068, 2.5) and
GLM-130B (2210.02414) did so by hand. Here a single bad step is skipped, and a loss that does not recover by itself
rewinds training.

- `SpikeWindow`: recent losses and gradient norms; part of a checkpoint, so that a resumed run judges as before
- `SpikeDetector`: judges steps by a window
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

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
class SpikeWindow:
    """Recent steps that a step is compared with."""

    losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    norms: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    consecutive_bad: int = 0
    """Steps in a row with too high a loss, or without an update."""

    def clear(self) -> None:
        """Forget all steps."""
        self.losses.clear()
        self.norms.clear()
        self.consecutive_bad = 0

    def as_json(self) -> dict[str, Any]:
        """The window as a JSON object; floats come back exactly."""
        return {"losses": list(self.losses), "norms": list(self.norms), "consecutive_bad": self.consecutive_bad}

    def restore(self, values: dict[str, Any]) -> None:
        """Take the values of `as_json`; an empty object clears the window."""
        self.clear()
        self.losses.extend(values.get("losses", ()))
        self.norms.extend(values.get("norms", ()))
        self.consecutive_bad = values.get("consecutive_bad", 0)


@dataclass
class SpikeDetector:
    """Judges each step by the losses and gradient norms of recent steps; the same on every worker."""

    on_spike: OnSpike
    norm_factor: float
    """Multiple of the median gradient norm above which a gradient is an outlier."""
    window: SpikeWindow = field(default_factory=SpikeWindow)

    def judge(self, loss: float, gradient_norm: float) -> Verdict:
        """Verdict on a step before its update."""
        finite = math.isfinite(loss) and math.isfinite(gradient_norm)
        if self.on_spike == "stop":
            return Verdict.TAKE if finite else Verdict.DIVERGED
        outlier = not finite or self._is_outlier(gradient_norm)
        high = outlier or self._is_high(loss)
        window = self.window
        window.consecutive_bad = window.consecutive_bad + 1 if high else 0
        if window.consecutive_bad >= PATIENCE:
            window.consecutive_bad = 0
            if self.on_spike == "rewind":
                return Verdict.REWIND
            if not finite:
                return Verdict.DIVERGED
            # A lasting change is the new normal.
            window.clear()
        if not outlier:
            window.norms.append(gradient_norm)
        if not high:
            window.losses.append(loss)
        return Verdict.SKIP if outlier else Verdict.TAKE

    def _is_outlier(self, gradient_norm: float) -> bool:
        norms = self.window.norms
        return len(norms) >= MIN_STEPS and gradient_norm > self.norm_factor * statistics.median(norms)

    def _is_high(self, loss: float) -> bool:
        losses = self.window.losses
        if len(losses) < MIN_STEPS:
            return False
        return loss > statistics.fmean(losses) + LOSS_DEVIATIONS * statistics.stdev(losses)
