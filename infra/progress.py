"""How a stage tells what it is doing, without knowing who listens."""

from typing import Protocol


class ProgressListener(Protocol):
    """Hears the phases of one stage; the command line draws them."""

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        """`done` of `total` units of a phase are behind us; `note` is a short figure worth seeing."""

    def logged(self, message: str) -> None:
        """A sentence that belongs in the log."""


class SilentListener:
    """For tests and for work that nobody watches."""

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        """Ignore."""

    def logged(self, message: str) -> None:
        """Ignore."""
