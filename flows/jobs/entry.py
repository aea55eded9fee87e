"""The driver of a submitted job: `python -m flows.jobs.entry STORE RUN_ID NUMBER`.

It takes the fencing number that the request names, executes one stage or all, and saves how that ended. Whoever stops
it (Ray sends SIGTERM) finds the run's progress as after Ctrl-C.
"""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import flows.prefect_server.environment  # noqa: F401 - environment variables
from data_schemas.errors import FencedError, HeadraceError
from data_schemas.public_urls import public_text
from flows.console import PlainView, console
from flows.jobs.requests import request_of
from flows.monitoring.status_board import StatusBoard
from flows.report.build import survived, write_report
from flows.runs.session import RunSession
from flows.runs.stage_time import limited_time
from infra.named_errors import named_errors
from infra.ray_jobs.logs import LogKeeper
from infra.ray_jobs.requests import JobFolder, JobRequest, JobResult
from infra.store.claims import BEAT_SECONDS, Claim
from infra.store.runs import RunStore, close
from infra.workers.nodes import check_nodes, check_versions, own_versions
from infra.workers.ray_session import close_ray, ensure_ray
from stages.registry import stage_named
from stages.stage import Stage

EXIT_STATUS = {"finished": 0, "failed": 2, "interrupted": 130}
FENCED_SECONDS = 60.0
"""Time that a job has to end when its run was taken over."""


def main(store_url: str, run_id: str, number: int) -> int:
    """Execute the request; returns the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    runs = RunStore(store_url).folder
    jobs = JobFolder(runs, run_id)
    keeper = LogKeeper(runs, run_id, number)
    try:
        result = _result(store_url, jobs, run_id, number)
        jobs.write_result(number, result)
    finally:
        close_ray()
        keeper.close()
    return EXIT_STATUS[result.status]


def _result(store_url: str, jobs: JobFolder, run_id: str, number: int) -> JobResult:
    try:
        with named_errors(store_url):
            request = jobs.request(number)
            if request is None:
                raise FencedError(f"run {run_id} has no request {number} for a job that this version can read")
            _execute(store_url, request)
        return JobResult(status="finished")
    except HeadraceError as error:
        console.print(f"error: {error}")
        return JobResult(status="failed", error=type(error).__name__, message=str(error))
    except (KeyboardInterrupt, SystemExit):
        console.print("stopped; finished work is kept")
        return JobResult(status="interrupted", message="the job was stopped")
    except BaseException as error:
        console.print(public_text(traceback.format_exc()))
        message = public_text(f"{type(error).__name__}: {error}")
        return JobResult(status="failed", error=type(error).__name__, message=message)


def _execute(store_url: str, job: JobRequest) -> None:
    check_versions(job.versions, own_versions(), "the head", "the submitter")
    request = request_of(job.run, store_url, job.run_id)
    try:
        ensure_ray()
        check_nodes()
    except HeadraceError as error:
        if job.stage is None:  # nobody may follow this job
            _close_unbegun(RunStore(store_url), job, str(error))
        raise
    session = RunSession.accept(request, job.run_id, job.number, job.stage, PlainView())
    board = StatusBoard(session.view, session)
    session.view = board
    if job.stage is not None:
        with _ends_when_fenced(session.claim), board.published():
            _execute_stage(session, stage_named(job.stage))
        return  # the submitter, or whoever continues the run, takes it back
    with session.closing(), _ends_when_fenced(session.claim), board.published():
        for stage in session.stages:
            _execute_stage(session, stage)
    with survived(store_url, session.run_id, session.view.logged):
        write_report(store_url, session.record)


def _close_unbegun(runs: RunStore, job: JobRequest, message: str) -> None:
    with contextlib.suppress(FencedError):
        record, _ = runs.accept(job.run_id, job.number)
        runs.save(close(record, "failed", message))


def _execute_stage(session: RunSession, stage: Stage) -> None:
    with limited_time(stage.name, session.request.config.stage_config(stage.name)):
        session.execute(stage)


@contextlib.contextmanager
def _ends_when_fenced(claim: Claim) -> Iterator[None]:
    """Stop this process if its run is taken over, even if the cluster cannot: until it commits, nobody else would.

    Raises:
        FencedError: if the run was taken over.
    """
    ended = threading.Event()
    threading.Thread(target=_watch, args=(claim, ended), name="fence", daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        claim.check()
        raise
    finally:
        ended.set()


def _watch(claim: Claim, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        try:
            claim.check()
        except FencedError:
            os.kill(os.getpid(), signal.SIGTERM)
            if not ended.wait(FENCED_SECONDS):
                os._exit(EXIT_STATUS["failed"])  # Ray ends the actors and tasks of a driver that is gone
        except Exception:
            pass  # the store is out of reach


def _interrupt(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray sends it to each process of the job
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
