"""The pipeline as a Prefect flow: the stages one after the other, as their inputs are wired.

- `pipeline`: the flow of a run config, as deployed
- `execute_request`: the same for a request that the command line or a stage's flow made
"""

import contextvars
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect import flow, get_run_logger
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from data_schemas.manifest import StageOutcome
from flows.console import TimeLeft, with_time_left
from flows.progress_artifact import ProgressArtifacts
from flows.report.build import write_report
from flows.run_config import RunConfig
from flows.run_session import RunRequest, RunSession, RunView
from flows.stage_tasks import stage_task
from flows.store_location import store_url
from infra.progress import ProgressListener
from infra.workers.orphans import end_orphans, mark_children
from infra.workers.ray_session import close_ray

_request: contextvars.ContextVar[RunRequest] = contextvars.ContextVar("request")
_view: contextvars.ContextVar[RunView] = contextvars.ContextVar("view")


@flow(name="headrace", flow_run_name="headrace {config.name}", persist_result=False)
def pipeline(
    config: RunConfig,
    store: str | None = None,
    until: str | None = None,
    fresh: bool = False,
) -> str:
    """Raw text to a compressed, benchmarked model.

    Args:
        config: one section per stage; what is left out takes the stage's defaults.
        store: URL of the artifact store; HEADRACE_HOME where left out.
        until: the last stage to run.
        fresh: start a new run though an unfinished one of the same config could be continued.

    Returns:
        The run's id.
    """
    request = _request.get(None)
    if request is None:
        request = RunRequest(config, store_url(store), last_stage=until, fresh=fresh)
    return run_stages(RunSession.begin(request, _view.get(None) or LoggerView()))


def run_stages(session: RunSession) -> str:
    """Execute every stage of a session inside the current flow; closes the run whatever happens."""
    if "PREFECT_API_URL" in os.environ:  # the ephemeral server dies with the run; nobody could watch it there
        session.view = ProgressArtifacts(session.view, session.run_id)
    try:
        for stage in session.stages:
            run_task: Callable[[], Any] = stage_task(stage, session)
            run_task()
        session.close("finished")
    except Exception as error:
        session.close("failed", str(error))
        raise
    except BaseException:
        session.close("interrupted")
        raise
    finally:
        close_ray()
    write_report(session.request.store_url, session.record)
    return session.run_id


def execute_request(request: RunRequest, view: RunView) -> str:
    """Run the pipeline's flow here and now for a request made in this process.

    Raises:
        HeadraceError: what the user can mend, without the flow engine's wrapping.
    """
    end_orphans()
    mark_children()
    with _given(request, view), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        run: Callable[..., str] = pipeline
        return run(config=request.config, store=request.store_url, until=request.last_stage, fresh=request.fresh)


@contextmanager
def _given(request: RunRequest, view: RunView) -> Iterator[None]:
    tokens = _request.set(request), _view.set(view)
    try:
        yield
    finally:
        _request.reset(tokens[0])
        _view.reset(tokens[1])


class LoggerView:
    """A run's progress in the flow run's log, for deployments; about a line per tenth of a phase."""

    def noted(self, message: str) -> None:
        """A line about the run."""
        get_run_logger().info(message)

    def listener(self, stage: str) -> ProgressListener:
        """Logs what it hears."""
        return _LoggerListener(stage)

    def ended(self, stage: str, outcome: StageOutcome) -> None:
        """Says what became of the stage."""
        get_run_logger().info("%s: %s (%s) -> %s", stage, outcome.action, outcome.why, outcome.artifact.label)


class _LoggerListener:
    def __init__(self, stage: str) -> None:
        self._stage = stage
        # Found here, in the stage's task: progress is also heard on threads, which Prefect gives no logger.
        self._logger = get_run_logger()
        self._tenths: dict[str, int] = {}
        self._time_left = TimeLeft()

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        self._time_left.advanced(phase, done, total)
        tenth = int(10 * done / total) if total else 10
        if self._tenths.get(phase) != tenth:
            self._tenths[phase] = tenth
            self._logger.info("%s: %s %s", self._stage, phase, with_time_left(note, self._time_left))

    def logged(self, message: str) -> None:
        self._logger.info("%s: %s", self._stage, message)
