"""Stopping jobs, verified: until Ray has ended them, and no actor, task or placement group of theirs is left.

- `stop_jobs`: stops jobs and waits until they hold nothing
"""

import contextlib
import time
from collections.abc import Callable, Collection

from data_schemas.errors import EnvironmentProblem
from infra.ray_jobs.client import JobState, RayJobs
from infra.ray_jobs.dashboard import ClusterAway
from infra.ray_jobs.requests import METADATA, PYTHON

STOP_SECONDS = 120.0
"""Time after which jobs that did not end are an error; Ray itself kills a driver after `STOP_WAIT_SECONDS`."""
STOP_WAIT_SECONDS = 15
"""Time that a driver has between SIGTERM and SIGKILL."""
RETRY_STOP_SECONDS = 30.0
"""The same before a retry, which does not depend on it."""
PENDING_SECONDS = 5.0
"""Time after which a job that was stopped before it began is taken to wait for resources."""
POLL_SECONDS = 0.5
NAMED = 5


def jobs_of_run(jobs: RayJobs, run_id: str, known: Collection[str] = ()) -> list[JobState]:
    """The cluster's jobs that carry the tag of a run, or one of the known ids."""
    return [job for job in jobs.all() if job.metadata.get(METADATA) == run_id or job.submission_id in known]


def stop_jobs(
    jobs: RayJobs,
    run_id: str,
    known: Collection[str] = (),
    report: Callable[[str], None] = lambda message: None,
    stop_seconds: float = STOP_SECONDS,
) -> list[str]:
    """Stop all jobs of a run; returns the ids of those that were stopped here.

    A cluster that does not answer for a while is asked again until the limit.

    Args:
        jobs: the cluster.
        run_id: the run.
        known: ids of jobs of the run that may not carry its tag.
        report: receives a line for each job that is stopped.
        stop_seconds: limit of the wait.

    Raises:
        EnvironmentProblem: if the cluster cannot be used, or something is left after the limit.
    """
    stops = _Stops(jobs, run_id, known, report)
    deadline = time.monotonic() + stop_seconds
    while True:
        try:
            left, away = stops.repeat(), None
        except ClusterAway as problem:
            left, away = [], problem
        if not left and not away:
            return list(stops.begun)
        if time.monotonic() >= deadline:
            raise away or EnvironmentProblem(
                f"run {run_id} was asked to stop {stop_seconds:g} s ago, and the Ray cluster at {jobs.address} still "
                f"has: {', '.join(left[:NAMED])}; try again with: headrace cancel {run_id}"
            )
        time.sleep(POLL_SECONDS)


class _Stops:
    """The jobs of a run that are being stopped."""

    def __init__(self, jobs: RayJobs, run_id: str, known: Collection[str], report: Callable[[str], None]) -> None:
        self._jobs, self._run_id, self._known, self._report = jobs, run_id, known, report
        self.begun: dict[str, float] = {}
        """Time of the first stop, by the id of the job."""
        self._released: set[str] = set()

    def repeat(self) -> list[str]:
        """Stop what has not ended; returns what is left."""
        found = jobs_of_run(self._jobs, self._run_id, self._known)
        for job in found:
            if not job.has_ended:
                self._stop(job)
        running = [f"job {job.submission_id} ({job.status})" for job in found if not job.has_ended]
        return running or [held for job in found if job.driver for held in self._jobs.held_by(job.driver)]

    def _stop(self, job: JobState) -> None:
        name, now = job.submission_id, time.monotonic()
        if name not in self.begun:
            self._report(f"stops job {name}")
        begun = self.begun.setdefault(name, now)
        self._jobs.stop(name)
        if job.status == "PENDING" and now - begun >= PENDING_SECONDS and name not in self._released:
            with contextlib.suppress(EnvironmentProblem):  # tried again, until the limit
                self._jobs.release(name, job.metadata.get(PYTHON, "python"))
                self._released.add(name)
