"""Cancelling a run, whoever executes it and wherever.

- `cancel`: fences a run, stops its jobs or its process, and waits until nothing of it is left on the cluster
- `stop_jobs_of_flow_run`: hook of the flows, for a flow run that was cancelled or whose process died
"""

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from data_schemas.errors import EnvironmentProblem
from data_schemas.manifest import RunRecord
from flows.store_location import store_url
from infra.processes import ProcessIdentity, this_process
from infra.ray_jobs.cancel import stop_jobs
from infra.ray_jobs.client import RayJobs
from infra.ray_jobs.requests import JobFolder, JobRequest
from infra.store.runs import RunStore, close

logger = logging.getLogger(__name__)


def cancel(store_url: str, run_id: str, address: str | None, report: Callable[[str], None]) -> RunRecord:
    """Fence a run, stop its jobs or its process, and record that it was interrupted; returns its record.

    Raises:
        EnvironmentProblem: if a cluster cannot be reached, or something of the run is left on it.
    """
    runs = RunStore(store_url)
    record = runs.get(run_id)
    jobs = JobFolder(runs.folder, record.run_id)
    requests = jobs.all()
    if record.status == "running":
        owner = runs.claims(record.run_id).owner(runs.claims(record.run_id).highest())
        record, _ = runs.fence(record.run_id)
        if owner and not owner.job and owner.process != this_process():
            _interrupt(owner.process, report)
        runs.save(close(record, "interrupted", "cancelled"))
    owners = (runs.claims(record.run_id).owner(number) for number in range(1, record.claim + 1))
    known = {request.submission_id for request in requests} | {owner.job for owner in owners if owner and owner.job}
    ended = {request.number for request in requests if jobs.result(request.number)}
    problems = []
    for cluster in _clusters(address, requests, known):
        try:
            stop_jobs(RayJobs(cluster), record.run_id, known, report)
        except EnvironmentProblem as problem:  # a cluster of an earlier attempt may be gone; the others are stopped
            if address or any(request.address == cluster and request.number not in ended for request in requests):
                problems.append(problem)
    if problems:
        raise problems[0]
    return runs.get(record.run_id)


def _interrupt(process: ProcessIdentity, report: Callable[[str], None]) -> None:
    """Interrupt the process that executes a run, if it is on this machine."""
    if not process.is_in_sight:
        report(f"{process} commits nothing any more, and ends when it notices that")
    elif not process.is_gone:
        with contextlib.suppress(OSError):
            os.kill(process.pid, signal.SIGINT)
        report(f"interrupts {process}")


def _clusters(address: str | None, requests: Sequence[JobRequest], known: Iterable[str]) -> list[str | None]:
    """Addresses at which jobs of a run may be, the newest first."""
    if address:
        return [address]
    used: list[str | None] = list(dict.fromkeys(request.address for request in reversed(requests)))
    return used or ([None] if any(known) else [])


def stop_jobs_of_flow_run(flow: Any, flow_run: Any, state: Any) -> None:
    """Cancel the run of a flow run if jobs of it may be on a cluster; a retry of the flow run continues it."""
    url = store_url(flow_run.parameters.get("store"))
    record = RunStore(url).of_flow_run(str(flow_run.id))
    if record is not None and JobFolder(RunStore(url).folder, record.run_id).all():
        cancel(url, record.run_id, None, logger.info)
