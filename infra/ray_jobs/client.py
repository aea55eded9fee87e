"""The jobs of a Ray cluster, through its dashboard: submit, state, stop, and what a job still holds.

- `RayJobs`: a connection whose errors are one sentence; requests have a timeout
- `JobState`: state of one job, as Ray's job API gives it
"""

import contextlib
import secrets
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.ray_jobs.dashboard import ClusterAway, cluster_address, connected, named_errors

START_DELAYS_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Waits while the cluster has no agent that starts jobs, as in its first seconds."""
ENDED = ("STOPPED", "SUCCEEDED", "FAILED")
SERVICES = ("_AutoscalingCoordinatorActor", "TrainStateActor")
"""Actors of Ray itself that hold no resources: the first job starts them for the whole cluster."""
RETURN_SECONDS = 300.0
"""Patience with a cluster that was reached before and does not answer, as while its head restarts."""
RETURN_POLL_SECONDS = 2.0

_RELEASE = """
import asyncio, ray
from ray.dashboard.modules.job.common import JobInfoStorageClient, JobStatus
ray.init(log_to_driver=False)
try:
    ray.kill(ray.get_actor({name!r}, namespace={namespace!r}))
except ValueError:
    jobs = JobInfoStorageClient(ray._private.worker.global_worker.gcs_client)
    asyncio.run(jobs.put_status({job!r}, JobStatus.STOPPED, message="stopped before it was started"))
"""


@dataclass(frozen=True)
class JobState:
    """One job."""

    submission_id: str
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    message: str = ""
    driver: str | None = None
    """Ray's id of the job's driver, which its tasks, actors and placement groups carry; None before it connects."""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """True for a state that does not change any more."""
        return self.status in ENDED


class RayJobs:
    """Connection to the dashboard of a cluster."""

    def __init__(self, address: str | None) -> None:
        """Connect, and compare versions.

        Args:
            address: URL of the dashboard (`http://head:8265`), or `host:port` of the head; by default RAY_ADDRESS.

        Raises:
            EnvironmentProblem: if there is no address, nothing answers, what answers is no dashboard, the token is
                refused, or Ray on the cluster has another version.
        """
        self.address = cluster_address(address)
        self._client = connected(self.address)

    def submit(
        self,
        submission_id: str,
        entrypoint: str,
        runtime_env: Mapping[str, Any],
        metadata: Mapping[str, str],
        cpus: float = 0.0,
        gpus: float = 0.0,
    ) -> bool:
        """Submit a job; False if the cluster knows the id already, as after a request whose answer was lost.

        Args:
            submission_id: the id; a cluster accepts it once.
            entrypoint: shell command of the driver.
            runtime_env: Ray's runtime environment; a `working_dir` that is a local archive is uploaded.
            metadata: what the job can be found by.
            cpus: processors reserved for the driver; with any resource it may run on any node, else on the head.
            gpus: accelerators reserved for the driver.
        """
        with named_errors(self.address):
            for delay in (*START_DELAYS_SECONDS, None):
                try:
                    self._client.submit_job(
                        submission_id=submission_id, entrypoint=entrypoint, runtime_env=dict(runtime_env),
                        metadata=dict(metadata), entrypoint_num_cpus=cpus or None, entrypoint_num_gpus=gpus or None,
                    )  # fmt: skip
                    break
                except RuntimeError as error:
                    if "already exists" in str(error):
                        return False
                    if delay is None or "No available agent" not in str(error):
                        raise
                    time.sleep(delay)
        return True

    def state(self, submission_id: str) -> JobState | None:
        """State of a job; None if the cluster does not know it, as after a restart of the head."""
        with named_errors(self.address):
            try:
                return _state(self._client.get_job_info(submission_id))
            except RuntimeError as error:
                if "status code 404" in str(error):
                    return None
                raise

    def all(self) -> list[JobState]:
        """Every job that was submitted to the cluster."""
        with named_errors(self.address):
            return [_state(details) for details in self._client.list_jobs() if details.submission_id]

    def stop(self, submission_id: str) -> None:
        """Request a job to end: SIGTERM to its processes, then SIGKILL; returns before it has ended."""
        with named_errors(self.address), contextlib.suppress(RuntimeError):  # it ended in the meantime
            self._client.stop_job(submission_id)

    def release(self, submission_id: str, python: str) -> None:
        """End a job that waits for resources, by a job without any on the head: Ray's own stop waits as the job does.

        A job whose submission broke off before its actor was created is recorded as stopped; nothing would ever start
        or end it (ray#62766).

        Args:
            submission_id: the job.
            python: command that starts Python on the nodes.
        """
        from ray.dashboard.modules.job.common import JOB_ACTOR_NAME_TEMPLATE, SUPERVISOR_ACTOR_RAY_NAMESPACE

        name = JOB_ACTOR_NAME_TEMPLATE.format(job_id=submission_id)
        script = _RELEASE.format(name=name, namespace=SUPERVISOR_ACTOR_RAY_NAMESPACE, job=submission_id)
        # No name twice, so that a release that failed can be tried again.
        identity = f"{submission_id}-release-{secrets.token_hex(2)}"
        self.submit(identity, f"exec {python} -c {shlex.quote(script)}", {}, {"headrace_releases": submission_id})

    def wait_until_back(self, report: Callable[[str], None], seconds: float = RETURN_SECONDS) -> None:
        """Wait for a cluster that does not answer at the moment.

        Args:
            report: receives a line if it does not answer.
            seconds: limit of the wait.

        Raises:
            ClusterAway: if it does not answer for so long.
        """
        deadline, is_away = time.monotonic() + seconds, False
        while True:
            try:
                with named_errors(self.address):
                    self._client._do_request("GET", "/api/version").raise_for_status()
                return
            except ClusterAway as problem:
                if time.monotonic() >= deadline:
                    raise
                if not is_away:
                    report(f"{problem}; waits up to {seconds:g} s for it")
                is_away = True
            time.sleep(RETURN_POLL_SECONDS)

    def held_by(self, driver: str) -> list[str]:
        """Names of all that a driver still has on the cluster: live actors, unfinished tasks, placement groups."""
        held = []
        for kind, filters in {
            "actors": {"job_id": ("=", driver), "state": ("!=", "DEAD")},
            "placement_groups": {"creator_job_id": ("=", driver), "state": ("!=", "REMOVED")},
            "tasks": {"job_id": ("=", driver), "state": ("!=", "FINISHED")},
        }.items():
            for row in self._list(kind, filters):
                name = row.get("class_name") or row.get("func_or_class_name") or row.get("name") or ""
                if row.get("state") != "FAILED" and name not in SERVICES:
                    held.append(f"{kind.removesuffix('s').replace('_', ' ')} {name} ({row.get('state')})")
        return held

    def _list(self, kind: str, filters: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
        parameters = {
            "limit": "1000",
            "timeout": "20",
            "filter_keys": list(filters),
            "filter_predicates": [predicate for predicate, _ in filters.values()],
            "filter_values": [value for _, value in filters.values()],
        }
        with named_errors(self.address):
            response = self._client._do_request("GET", f"/api/v0/{kind}", params=parameters)
            response.raise_for_status()
            rows: list[dict[str, Any]] = response.json()["data"]["result"]["result"]
        return rows


def _state(details: Any) -> JobState:
    return JobState(
        details.submission_id, str(details.status), details.message or "", details.job_id, dict(details.metadata or {})
    )
