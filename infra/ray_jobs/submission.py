"""Submitting jobs: the code they bring, the command they run, the tags they carry.

- `JobSubmitter`: a connection to a cluster with everything that its jobs have in common
"""

import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_schemas.public_urls import public_url
from infra.ray_jobs.cancel import STOP_WAIT_SECONDS
from infra.ray_jobs.client import RayJobs
from infra.ray_jobs.requests import METADATA, PYTHON, JobRequest
from infra.ray_jobs.working_dir import archive


class JobSubmitter:
    """Submits the jobs of one run."""

    def __init__(
        self, address: str | None, working_dir: str | None, python: str, cpus: float = 0.0, gpus: float = 0.0
    ) -> None:
        """Connect, and pack the code.

        Args:
            address: the cluster; see `RayJobs`.
            working_dir: git checkout whose tracked files are uploaded; None for the code on the nodes.
            python: command that starts Python there.
            cpus: processors reserved for each driver.
            gpus: accelerators reserved for each driver.

        Raises:
            EnvironmentProblem: if the cluster cannot be used.
            ConfigError: if the code cannot be packed, or is too large.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-code-")
        self._archive = archive(working_dir, Path(self._folder.name)) if working_dir else None
        self.jobs = RayJobs(address)
        self._python, self._cpus, self._gpus = python, cpus, gpus

    def submit(self, request: JobRequest, module: str, store_url: str, labels: Mapping[str, str]) -> None:
        """Submit the job of a request; one that the cluster knows already is left as it is.

        Args:
            request: saved in the store already.
            module: Python module that the job runs, with the store, the run's id and the fencing number.
            store_url: URL of the store, without credentials.
            labels: more metadata.
        """
        runtime_env: dict[str, Any] = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_SECONDS)}}
        if self._archive is not None:
            runtime_env["working_dir"] = str(self._archive)
        arguments = [store_url, request.run_id, str(request.number)]
        self.jobs.submit(
            request.submission_id,
            f"exec {self._python} -m {module} {shlex.join(arguments)}",
            runtime_env,
            {
                METADATA: request.run_id,
                PYTHON: self._python,
                "headrace_stage": request.stage or "all",
                "headrace_attempt": str(request.number),
                "headrace_store": public_url(store_url),
                **labels,
            },
            self._cpus,
            self._gpus,
        )
