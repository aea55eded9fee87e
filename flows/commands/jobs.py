"""`headrace submit`, `attach`, `logs`: runs that work on a cluster, from any machine that reaches the store.

- `submit`: hands a run to a job and returns
- `attach`, `print_logs`: what the jobs of a run print, from the store
"""

import contextlib
import sys
import time
from collections.abc import Iterable

from data_schemas.errors import EnvironmentProblem, FencedError, HeadraceError, NotFoundError
from data_schemas.manifest import RunRecord
from data_schemas.public_urls import public_text
from flows.jobs.submitted import SubmittedSession
from flows.runs.request import RunRequest
from flows.runs.view import RunView
from infra.ray_jobs.client import JobState, RayJobs
from infra.ray_jobs.following import Pulse, WaitForStart
from infra.ray_jobs.logs import LogReader
from infra.ray_jobs.requests import JobFolder, JobRequest
from infra.store.claims import BEAT_SECONDS, MISSED_BEATS
from infra.store.runs import RunStore

POLL_SECONDS = 1.0
LAST_LINES_SECONDS = 60.0
"""Patience with a job that has ended its run, and still writes the report and what it printed."""
MESSAGE_CHARACTERS = 400


def submit(request: RunRequest, view: RunView) -> tuple[str, JobRequest]:
    """Hand a run to one job; returns the run's id and the job, which may be in progress already.

    Raises:
        HeadraceError: if the cluster, the store or the code cannot be used; nothing has started then.
    """
    session = SubmittedSession.begin(request, view)
    try:
        return session.run_id, session.following or session.hand_over(None)
    except BaseException as error:
        if not isinstance(error, FencedError):
            with contextlib.suppress(HeadraceError):  # the error that led here is reported
                session.withdraw()
        session.close("failed" if isinstance(error, Exception) else "interrupted", str(error) or None)
        raise


def print_logs(store_url: str, run_id: str) -> None:
    """Print all that the jobs of a run have printed so far.

    Raises:
        NotFoundError: if no job of the run has printed anything.
    """
    runs = RunStore(store_url)
    run_id = runs.get(run_id).run_id
    if not _print(LogReader(runs.folder, run_id).new_text()):
        jobs = JobFolder(runs.folder, run_id).all()
        why = (
            f"if job {jobs[-1].submission_id} could not begin, Ray reports why: ray job logs --address "
            f"{jobs[-1].address} {jobs[-1].submission_id}"
            if jobs
            else "it was run without jobs"
        )
        raise NotFoundError(f"no job of run {run_id} has printed anything; {why}")


def attach(store_url: str, run_id: str, address: str | None) -> RunRecord:
    """Print what the jobs of a run print until it has ended; returns its record.

    Raises:
        EnvironmentProblem: if nobody works on the run any more.
    """
    runs = RunStore(store_url)
    record = runs.get(run_id)
    log = LogReader(runs.folder, record.run_id)
    was_running = record.status == "running"
    start = WaitForStart(lambda line: print(line, flush=True))
    while record.status == "running":
        highest = runs.claims(record.run_id).highest()
        pulse = Pulse(runs.claims(record.run_id).folder, highest)
        while record.status == "running" and runs.claims(record.run_id).highest() == highest:
            with contextlib.suppress(OSError):
                pulse.listen()
                _print(log.new_text())
                record = runs.get(record.run_id)
            if pulse.silent_seconds > MISSED_BEATS * BEAT_SECONDS:
                start.look(_checked_state(runs, record, address))
            time.sleep(POLL_SECONDS)
    deadline = time.monotonic() + LAST_LINES_SECONDS
    while was_running and time.monotonic() < deadline and _runs(_last_state(runs, record, address)):
        time.sleep(POLL_SECONDS)
    _print(log.new_text())
    return record


def _checked_state(runs: RunStore, record: RunRecord, address: str | None) -> JobState:
    """State of the last job, which has not ended.

    Raises:
        EnvironmentProblem: if it has, or its cluster does not know it or does not answer.
    """
    state = _last_state(runs, record, address)
    if state is None or state.has_ended:
        raise EnvironmentProblem(
            f"nobody works on run {record.run_id} any more{_last_words(runs, record, state)}: continue it with the "
            f"command that began it; what it printed: headrace logs {record.run_id}"
        )
    return state


def _last_words(runs: RunStore, record: RunRecord, state: JobState | None) -> str:
    """The end of the last job, as far as it or Ray could record it, as an addition in brackets."""
    folder = JobFolder(runs.folder, record.run_id)
    results = [result for request in folder.all() if (result := folder.result(request.number))]
    message = results[-1].message if results else public_text(" ".join(state.message.split())) if state else ""
    return f" (its last job: {message[:MESSAGE_CHARACTERS]})" if message else ""


def _last_state(runs: RunStore, record: RunRecord, address: str | None) -> JobState | None:
    """State of the last job by its cluster; None if that does not know it, or does not answer."""
    for request in reversed(JobFolder(runs.folder, record.run_id).all()):
        with contextlib.suppress(EnvironmentProblem):
            return RayJobs(address or request.address).state(request.submission_id)
    return None


def _runs(state: JobState | None) -> bool:
    return state is not None and not state.has_ended


def _print(texts: Iterable[str]) -> bool:
    any_text = False
    for text in texts:
        any_text = True
        sys.stdout.write(text)
        sys.stdout.flush()
    return any_text
