"""Stopping jobs, verified: until Ray has ended them, and no actor, task or placement group of theirs is left.

- `stop_jobs`: stops jobs and waits until they hold nothing
"""

import time
from collections.abc import Callable, Collection

from data_schemas.errors import EnvironmentProblem
from infra.ray_jobs.client import JobState, RayJobs
from infra.ray_jobs.requests import METADATA

STOP_SECONDS = 120.0
"""Time after which jobs that did not end are an error; Ray itself kills a driver after `STOP_WAIT_SECONDS`."""
STOP_WAIT_SECONDS = 15
"""Time that a driver has between SIGTERM and SIGKILL."""
RETRY_STOP_SECONDS = 30.0
"""The same before a retry, which does not depend on it."""
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

    Args:
        jobs: the cluster.
        run_id: the run.
        known: ids of jobs of the run that may not carry its tag.
        report: receives a line for each job that is stopped.
        stop_seconds: limit of the wait.

    Raises:
        EnvironmentProblem: if the cluster cannot be reached, or something is left after the limit.
    """
    deadline = time.monotonic() + stop_seconds
    stopped: list[str] = []
    while True:
        found = jobs_of_run(jobs, run_id, known)
        for job in found:
            if not job.has_ended and job.submission_id not in stopped:
                report(f"stops job {job.submission_id}")
                stopped.append(job.submission_id)
            if not job.has_ended:
                jobs.stop(job.submission_id)
        left = _left(jobs, found)
        if not left:
            return stopped
        if time.monotonic() >= deadline:
            raise EnvironmentProblem(
                f"run {run_id} was asked to stop {stop_seconds:g} s ago, and the Ray cluster at {jobs.address} still "
                f"has: {', '.join(left[:NAMED])}; try again with: headrace cancel {run_id}"
            )
        time.sleep(POLL_SECONDS)


def _left(jobs: RayJobs, found: list[JobState]) -> list[str]:
    running = [f"job {job.submission_id} ({job.status})" for job in found if not job.has_ended]
    return running or [held for job in found if job.driver for held in jobs.held_by(job.driver)]
