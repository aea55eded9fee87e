"""Collects the state of a run beside the run's own view, and publishes it.

- `StatusBoard`: a view that forwards to another one, keeps a `RunStatus` and writes it to the store
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from data_schemas.manifest import StageOutcome
from data_schemas.public_urls import public_text
from flows.monitoring.json_lines import JsonLines
from flows.monitoring.run_status import RunStatus, StageStatus, publish
from flows.runs.session import RunSession
from flows.runs.view import RunView
from infra.progress import ProgressListener
from infra.workers.ray_session import dashboard_url

PUBLISH_SECONDS = 5.0
"""One request of about 2 kB each."""
KEPT_LINES = 30

logger = logging.getLogger(__name__)


class StatusBoard:
    """State of the run that this process works on; callbacks may come from any thread."""

    def __init__(self, view: RunView, session: RunSession) -> None:
        """Forward to `view`; no stage has begun."""
        self._view, self._session = view, session
        self._lock = threading.Lock()
        self._begun: dict[str, float] = {}
        self._status = RunStatus(
            run_id=session.run_id,
            attempt=session.claim.number,
            host=session.record.host,
            stages={stage.name: StageStatus() for stage in session.stages},
            written=datetime.now(UTC),
        )
        self._is_new = True

    @classmethod
    def begin(cls, session: RunSession) -> "StatusBoard":
        """A board that forwards to the session's view, whose lines name the run from now on."""
        if isinstance(session.view, JsonLines):
            session.view.began(session.run_id, session.claim.number)
        return cls(session.view, session)

    def logged(self, message: str) -> None:
        """As in the wrapped view; the line is kept."""
        self._keep("run", message)
        self._view.logged(message)

    def stage_started(self, stage: str) -> ProgressListener:
        """As in the wrapped view; the stage is running."""
        with self._changed(stage) as status:
            status.state = "running"
            self._begun[stage] = time.monotonic()
        return _BoardListener(self, self._view.stage_started(stage), stage)

    def stage_finished(self, stage: str, outcome: StageOutcome) -> None:
        """As in the wrapped view; the stage is done."""
        with self._changed(stage) as status:
            self._begun.pop(stage, None)
            status.state = "reused" if outcome.action == "reuse" else "done"
            status.why, status.seconds = outcome.why, outcome.seconds
            status.phase, status.note = "", ""
        self._view.stage_finished(stage, outcome)

    def link(self, name: str, url: str) -> None:
        """Add the URL of a page about the run."""
        with self._lock:
            self._is_new |= self._status.links.get(name) != url
            self._status.links[name] = url

    def status(self) -> RunStatus:
        """A copy of the state now."""
        with self._lock:
            now = time.monotonic()
            for stage, begun in self._begun.items():
                self._status.stages[stage].seconds = now - begun
            updates = {"written": datetime.now(UTC), "attempt": self._session.claim.number}
            return self._status.model_copy(deep=True, update=updates)

    @contextlib.contextmanager
    def published(self) -> Iterator[None]:
        """Write the state every few seconds while the block runs, if it changed, and once after it."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,), name="run-status", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self._publish()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._publish()
            stop.wait(PUBLISH_SECONDS)

    def _publish(self) -> None:
        """Write the state; a store that does not answer costs the state and not the run."""
        with self._lock:
            is_new = self._is_new or bool(self._begun)
            self._is_new = False
        try:
            if url := dashboard_url():
                self.link("ray", url)
            if is_new:
                publish(self._session.claim, self.status())
        except Exception as error:
            logger.debug("state of run %s not published: %s", self._status.run_id, error)
            self._is_new = True

    def _keep(self, origin: str, message: str) -> None:
        line = f"{datetime.now(UTC):%H:%M:%S} {origin}: {public_text(message)}"
        with self._lock:
            self._status.lines = [*self._status.lines[1 - KEPT_LINES :], line]
            self._is_new = True

    @contextlib.contextmanager
    def _changed(self, stage: str) -> Iterator[StageStatus]:
        with self._lock:
            yield self._status.stages.setdefault(stage, StageStatus())
            self._is_new = True


@dataclass(frozen=True)
class _BoardListener:
    board: StatusBoard
    inner: ProgressListener
    stage: str

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        with self.board._changed(self.stage) as status:
            status.phase, status.done, status.total, status.note = phase, done, total, note
        self.inner.advanced(phase, done, total, note)

    def logged(self, message: str) -> None:
        self.board._keep(self.stage, message)
        self.inner.logged(message)

    def measured(self, phase: str, figures: Mapping[str, float]) -> None:
        with self.board._changed(self.stage) as status:
            status.figures[phase] = {**status.figures.get(phase, {}), **figures}
        self.inner.measured(phase, figures)
