"""Dynamic loss scaling: small gradients survive float16 (Micikevicius et al. 2018, 1710.03740, 3.2).

torch's GradScaler looks for overflows on its own process; here the whole network's gradient norm tells, so that all
processes skip the same steps whatever part of the network they hold.
"""

from dataclasses import dataclass

GROWTH_STEPS = 2_000
SMALLEST = 2.0**-10
"""Below this it is not the scale that is too large."""


@dataclass
class LossScale:
    """Halved by a step that overflows, doubled after many that do not."""

    value: float = 2.0**16
    good_steps: int = 0
    skipped: int = 0
    """Steps skipped so far."""

    def overflowed(self) -> None:
        """A step was skipped."""
        self.value /= 2
        self.good_steps = 0
        self.skipped += 1

    def succeeded(self) -> None:
        """A step was taken."""
        self.good_steps += 1
        if self.good_steps == GROWTH_STEPS:
            self.value *= 2
            self.good_steps = 0

    @property
    def exhausted(self) -> bool:
        """True where even tiny scales overflow."""
        return self.value < SMALLEST
