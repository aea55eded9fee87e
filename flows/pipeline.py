"""The pipeline as a Prefect flow: all stages in order, each with the inputs that it declares.

- `pipeline`: the flow for a run config, as deployed
- `execute_request`: the same for a request of the command line
- `run_deployed`, `run_request`: a request inside any flow; `run_stages`: the stages of its session
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact
from prefect.runtime import flow_run
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from data_schemas.manifest import StageOutcome
from data_schemas.public_urls import public_url
from flows.config.run_config import RunConfig, public_config
from flows.console import TimeLeft, with_time_left
from flows.jobs.cancelling import stop_jobs_of_flow_run
from flows.jobs.submitted import SubmittedSession, begin_session
from flows.monitoring.prometheus import serve_metrics
from flows.monitoring.status_board import StatusBoard
from flows.prefect_server.accelerator_slots import accelerator_slot, accelerator_slot_of_job
from flows.prefect_server.cancellation import cancelled_named, ends_as_cancelled, stops_when_cancelled
from flows.prefect_server.connection import api_url, check_server
from flows.prefect_server.flow_runs import earlier_attempt, flow_run_id
from flows.prefect_server.progress_artifact import ProgressArtifacts
from flows.report.build import survived, write_report
from flows.runs.artifacts import PROFILE_PAGE, REPORT, report_location
from flows.runs.request import RunRequest
from flows.runs.session import RunSession
from flows.runs.start import RunStart
from flows.runs.view import RunView
from flows.stage_tasks import exceeded_time_named, run_task, stage_task
from flows.store_location import store_url
from infra.progress import ProgressListener
from infra.store.access import check_access
from infra.workers.orphans import prepare_process
from infra.workers.ray_session import close_ray
from stages.registry import StageName

PAGES = {REPORT: "report", PROFILE_PAGE: "corpus profile"}
"""File beside the run's report -> what it is, as Prefect's artifacts name it."""
_request: contextvars.ContextVar[RunRequest] = contextvars.ContextVar("request")
_view: contextvars.ContextVar[RunView] = contextvars.ContextVar("view")
_start: contextvars.ContextVar[RunStart | None] = contextvars.ContextVar("start", default=None)


@flow(
    name="headrace",
    flow_run_name="headrace {config.name}",
    persist_result=False,
    on_cancellation=[stop_jobs_of_flow_run],
    on_crashed=[stop_jobs_of_flow_run],
)
def pipeline(
    config: RunConfig,
    store: str | None = None,
    until: StageName | None = None,
    fresh: bool = False,
    keep_versions: bool = False,
) -> str:
    """Raw text to a compressed, benchmarked model.

    Args:
        config: one section per stage; omitted fields take the stage's defaults.
        store: URL of the artifact store; HEADRACE_HOME by default.
        until: name of the last stage to run; all stages by default.
        fresh: start a new run even if an unfinished one of the same config could be continued.
        keep_versions: reuse artifacts that other versions of packages made.

    Returns:
        Id of the run.
    """
    request = _request.get(None)
    if request is not None:
        with stops_when_cancelled():
            return run_request(request, _view.get(), _start.get())
    return run_deployed(
        RunRequest(config, store_url(store), last_stage=until, fresh=fresh, keep_versions=keep_versions)
    )


def run_deployed(request: RunRequest) -> str:
    """Execute a request inside the current flow, which a worker started; returns the id of the run."""
    check_access(request.store_url)
    prepare_process()
    with ends_as_cancelled():
        return run_request(request, LoggerView())


def run_request(request: RunRequest, view: RunView, start: RunStart | None = None) -> str:
    """Execute a request inside the current flow; returns the id of the run.

    A retried flow run continues the run that it began; if that is finished, nothing is left to do.
    """
    record = earlier_attempt(request.store_url)
    if record is not None and record.status == "finished":
        view.logged(f"this flow run has finished run {record.run_id} already; start another flow run for another run")
        return record.run_id
    return run_stages(begin_session(replace(request, flow_run=flow_run_id()), view, start))


def run_stages(session: RunSession) -> str:
    """Execute all stages of a session inside the current flow; the run is closed on success, failure and interrupt."""
    try:
        with session.closing(), _monitored(session):
            if isinstance(session, SubmittedSession) and session.request.config.execution.submit == "run":
                execute_all: Callable[[], Any] = run_task(session)
                with accelerator_slot_of_job(session):
                    execute_all()
            else:
                for stage in session.stages:
                    execute: Callable[[], Any] = stage_task(stage, session)
                    with accelerator_slot(stage, session), exceeded_time_named(stage.name, session):
                        execute()
    finally:
        close_ray()
    _report(session)
    return session.run_id


@contextmanager
def _monitored(session: RunSession) -> Iterator[None]:
    """Publish the state of the run while the block runs: to the store, and where asked to Prefect and Prometheus."""
    board = session.view = StatusBoard.begin(session)
    if api_url():  # an ephemeral server ends with the run: bars and pages there could not be seen
        session.view = ProgressArtifacts(board, session.run_id)
        if page := flow_run.get_flow_run_ui_url():
            board.link("prefect", page)
    execution = session.request.config.execution
    with contextlib.ExitStack() as stack:
        if execution.metrics_port is not None:
            name, address = session.request.config.name, execution.metrics_address
            port = stack.enter_context(serve_metrics(board.status, name, address, execution.metrics_port))
            board.link("metrics", f"http://{address}:{port}/metrics")
            board.logged(f"metrics: http://{address}:{port}/metrics")
        stack.enter_context(board.published())
        yield


def _report(session: RunSession) -> None:
    store, run_id = session.request.store_url, session.run_id
    with survived(store, run_id, session.view.logged):
        write_report(store, session.record)
        if api_url() and (location := report_location(store, session.record)):
            link = location if "://" in location else f"file://{Path(location).absolute()}"
            create_link_artifact(link, f"report of {run_id}", key="headrace-report")


def execute_request(request: RunRequest, view: RunView, start: RunStart | None = None) -> str:
    """Run the pipeline's flow in this process; returns the id of the run.

    Args:
        request: the request.
        view: callbacks for progress.
        start: what the run begins with, if it was planned just now.

    Raises:
        HeadraceError: errors that the user can fix, without the flow engine's wrapping.
    """
    check_access(request.store_url)
    prepare_process()
    check_server()
    # A temporary server ends with the run, which nobody could declare crashed.
    heartbeat = {} if api_url() else {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with cancelled_named(), _flow_context(request, view, start), temporary_settings(heartbeat):
        run: Callable[..., str] = pipeline
        # The flow engine keeps parameters in its database; the request itself comes by the context.
        return run(
            config=public_config(request.config), store=public_url(request.store_url), until=request.last_stage,
            fresh=request.fresh, keep_versions=request.keep_versions,
        )  # fmt: skip


@contextmanager
def _flow_context(request: RunRequest, view: RunView, start: RunStart | None) -> Iterator[None]:
    """Pass request, view and plan to the flow, whose own parameters must be JSON values."""
    tokens = _request.set(request), _view.set(view), _start.set(start)
    try:
        yield
    finally:
        _request.reset(tokens[0])
        _view.reset(tokens[1])
        _start.reset(tokens[2])


class LoggerView:
    """Progress of a run in the log of a deployment's flow run; about one line per tenth of a phase."""

    def logged(self, message: str) -> None:
        """A line about the run."""
        get_run_logger().info(message)

    def stage_started(self, stage: str) -> ProgressListener:
        """Return a listener that logs."""
        return _LoggerListener(stage)

    def stage_finished(self, stage: str, outcome: StageOutcome) -> None:
        """Log the outcome of the stage."""
        get_run_logger().info("%s: %s (%s) -> %s", stage, outcome.action, outcome.why, outcome.artifact.label)


class _LoggerListener:
    def __init__(self, stage: str) -> None:
        self._stage = stage
        # Looked up in the stage's task: progress also arrives on threads, for which Prefect has no logger.
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

    def measured(self, phase: str, figures: Mapping[str, float]) -> None:
        pass  # the line of the phase names them
