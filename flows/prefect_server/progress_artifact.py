"""A progress bar in Prefect's user interface for each stage that runs, beside the run's own view."""

import logging
import time
from collections.abc import Callable, Mapping
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from data_schemas.manifest import StageOutcome
from flows.runs.view import RunView
from infra.progress import ProgressListener

UPDATE_EVERY_SECONDS = 5.0

logger = logging.getLogger(__name__)


class ProgressArtifacts:
    """A view that also shows the current phase of each stage as a progress artifact."""

    def __init__(self, view: RunView, run_id: str) -> None:
        """Wrap the view of a run."""
        self._view, self._run_id = view, run_id

    def logged(self, message: str) -> None:
        """As in the wrapped view."""
        self._view.logged(message)

    def stage_started(self, stage: str) -> ProgressListener:
        """Create the stage's artifact; call it inside the stage's task, whose page shows it."""
        return _ArtifactListener(self._view.stage_started(stage), stage, self._run_id)

    def stage_finished(self, stage: str, outcome: StageOutcome) -> None:
        """As in the wrapped view."""
        self._view.stage_finished(stage, outcome)


class _ArtifactListener:
    """Updates by the artifact's id, since progress may arrive on a thread without a task context."""

    def __init__(self, inner: ProgressListener, stage: str, run_id: str) -> None:
        self._inner, self._stage = inner, stage
        self._phase = ""
        self._next_update = 0.0
        self._artifact: UUID | None = None
        self._attempt(lambda: self._make(f"headrace-{stage}-progress", f"{stage} of run {run_id}"))

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        self._inner.advanced(phase, done, total, note)
        now = time.monotonic()
        artifact = self._artifact
        if artifact is None or (phase == self._phase and done < total and now < self._next_update):
            return
        self._phase, self._next_update = phase, now + UPDATE_EVERY_SECONDS
        percent = 100 * done / total if total else 100.0
        self._attempt(lambda: update_progress_artifact(artifact, percent, f"{self._stage}, {phase}: {note}"))

    def logged(self, message: str) -> None:
        self._inner.logged(message)

    def measured(self, phase: str, figures: Mapping[str, float]) -> None:
        self._inner.measured(phase, figures)

    def _make(self, key: str, description: str) -> None:
        artifact = create_progress_artifact(0.0, key, description)
        assert isinstance(artifact, UUID)  # not a coroutine: stages do not run in an event loop
        self._artifact = artifact

    def _attempt(self, work: Callable[[], object]) -> None:
        """Do some work; if the server does not answer, disable the bar and continue the run."""
        try:
            work()
        except Exception as error:
            self._artifact = None
            logger.warning("progress bar in Prefect disabled for %s: %s", self._stage, error)
