"""Dynamic loss scaling against underflow of float16 gradients (Micikevicius et al. 2018, 1710.03740, section 3.2).

torch's GradScaler detects overflows per process; here they are detected in the gradient norm of the whole network, so
that all processes skip the same steps whatever part of the network they hold.
"""

from dataclasses import dataclass

GROWTH_STEPS = 2_000
MIN_SCALE = 2.0**-10
"""Scale below which overflows have another cause."""


@dataclass
class LossScale:
    """Loss scale, halved after an overflow and doubled after many steps without one."""

    value: float = 2.0**16
    good_steps: int = 0
    skipped: int = 0
    """Number of skipped steps."""

    def overflowed(self) -> None:
        """Update after a skipped step."""
        self.value /= 2
        self.good_steps = 0
        self.skipped += 1

    def succeeded(self) -> None:
        """Update after a successful step."""
        self.good_steps += 1
        if self.good_steps == GROWTH_STEPS:
            self.value *= 2
            self.good_steps = 0

    @property
    def exhausted(self) -> bool:
        """True if even tiny scales overflow."""
        return self.value < MIN_SCALE
