"""A run that reuses every stage, without the flow engine.

A temporary Prefect server would be started for it, and end before anybody could look at it: most of such a run's time.

- `has_finished`: whether the newest run of a request is finished, so that all of it can most likely be reused
- `can_do_without_engine`, `reuse_all`: whether a planned run needs no flow engine, and its execution
"""

from contextlib import suppress

from flows.monitoring.status_board import StatusBoard
from flows.prefect_server.process import uses_temporary_server
from flows.report.build import survived, write_report
from flows.runs.earlier import newest_run
from flows.runs.request import RunRequest
from flows.runs.session import NotReused, RunSession
from flows.runs.start import RunStart
from flows.runs.view import RunView
from infra.named_errors import named_errors
from infra.store.filesystem import Folder
from infra.store.runs import RunStore
from infra.workers.orphans import prepare_process


def has_finished(request: RunRequest) -> bool:
    """Whether the newest run of the same request is finished; False if a store on this machine cannot tell."""
    with suppress(Exception):  # a store that cannot be used is reported by `check_usable`
        newest = newest_run(RunStore(request.store_url), request) if Folder(request.store_url).is_local else None
        return newest is not None and newest.status == "finished"
    return False


def can_do_without_engine(request: RunRequest, start: RunStart) -> bool:
    """Whether nobody could see the run in a flow engine, and none of its retries could be needed."""
    execution = request.config.execution
    is_here = execution.submit == "none" and execution.metrics_port is None and Folder(request.store_url).is_local
    return is_here and start.reuses_all and uses_temporary_server()


def reuse_all(request: RunRequest, view: RunView, start: RunStart) -> str | None:
    """Execute a run that reuses every stage.

    Returns:
        Id of the run; None if an artifact is gone since it was planned, and the flow engine has to continue the run.

    Raises:
        HeadraceError: for an artifact that is damaged, and a store that cannot be written to.
    """
    prepare_process()
    with named_errors(request.store_url):
        session = RunSession.begin(request, view, start)
        session.may_run = False
        board = session.view = StatusBoard.begin(session)
        try:
            with session.closing(), board.published():
                for stage in session.stages:
                    session.execute(stage)
        except NotReused:
            return None
    with survived(request.store_url, session.run_id, session.view.logged):
        write_report(request.store_url, session.record)
    return session.run_id
