"""Callbacks for the progress of a run.

- `RunView`: what a terminal, a log or the status page implements
- `SilentView`: ignores everything
"""

from typing import Protocol

from data_schemas.manifest import StageOutcome
from infra.progress import ProgressListener, SilentListener


class RunView(Protocol):
    """Callbacks for the progress of a run; a terminal or a log implements them."""

    def logged(self, message: str) -> None:
        """A sentence about the run as a whole."""

    def stage_started(self, stage: str) -> ProgressListener:
        """A stage starts to run; returns the listener for its progress."""

    def stage_finished(self, stage: str, outcome: StageOutcome) -> None:
        """A stage has its artifact."""


class SilentView:
    """Ignores everything."""

    def logged(self, message: str) -> None:
        """Ignore."""

    def stage_started(self, stage: str) -> ProgressListener:
        """Return a listener that ignores everything."""
        return SilentListener()

    def stage_finished(self, stage: str, outcome: StageOutcome) -> None:
        """Ignore."""
