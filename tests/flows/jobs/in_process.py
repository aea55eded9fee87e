"""A cluster whose jobs are executed by the test itself, when it wants them to be."""

from collections.abc import Callable
from typing import Any

import pytest

from flows.config.run_config import RunConfigBase
from flows.jobs import entry, submitted
from flows.jobs.submitted import SubmittedSession
from flows.runs.request import RunRequest
from flows.runs.session import RunSession
from infra.ray_jobs.client import JobState
from infra.ray_jobs.requests import METADATA, JobFolder, JobRequest
from infra.store.runs import RunStore
from tests.flows.mini import Diary, mini_config


class Cluster:
    """Jobs by their ids; each is executed as soon as it is submitted, unless `execute` is replaced."""

    address = "http://cluster:8265"

    def __init__(self, store: str) -> None:
        self.store = store
        self.states: dict[str, str] = {}
        self.runs: dict[str, str] = {}
        self.stops: list[str] = []
        self.message = ""
        self.jobs = self
        self.execute: Callable[[JobRequest], str] = self.executed

    def executed(self, request: JobRequest) -> str:
        """Execute a job in this process; returns its state."""
        folder = JobFolder(RunStore(self.store).folder, request.run_id)
        result = entry._result(self.store, folder, request.run_id, request.number)
        folder.write_result(request.number, result)
        return "SUCCEEDED" if result.status == "finished" else "FAILED"

    def submit(self, request: JobRequest, module: str, store_url: str, labels: Any) -> None:
        """As in `JobSubmitter`."""
        assert (module, store_url) == ("flows.jobs.entry", self.store)
        assert request.submission_id not in self.states
        self.states[request.submission_id] = "RUNNING"
        self.runs[request.submission_id] = request.run_id
        self.states[request.submission_id] = self.execute(request)

    def state(self, submission_id: str) -> JobState | None:
        """As in `RayJobs`."""
        status = self.states.get(submission_id)
        return status and JobState(submission_id, status, self.message, "01", {METADATA: self.runs[submission_id]})

    def all(self) -> list[JobState]:
        """As in `RayJobs`."""
        return [state for name in self.states if (state := self.state(name))]

    def stop(self, submission_id: str) -> None:
        """As in `RayJobs`."""
        self.stops.append(submission_id)
        self.states[submission_id] = "STOPPED"

    def wait_until_back(self, report: Any) -> None:
        """As in `RayJobs`."""

    def held_by(self, driver: str) -> list[str]:
        """As in `RayJobs`."""
        return []


def use_cluster(monkeypatch: pytest.MonkeyPatch, store: str) -> Cluster:
    """The cluster that requests are submitted to from now on."""
    cluster = Cluster(store)
    monkeypatch.setattr(submitted, "submitter_of", lambda request: cluster)
    for name in ("ensure_ray", "check_nodes"):
        monkeypatch.setattr(entry, name, lambda: None)
    return cluster


def submitted_config(path: str, submit: str, *overrides: str) -> RunConfigBase:
    """The small config, with jobs on a cluster."""
    execution = (f"execution.submit={submit}", "execution.shared_filesystem=true", "execution.follow_seconds=0.05")
    return mini_config(path, *execution, *overrides)


def request(path: str, store: str, submit: str, *overrides: str, last_stage: str = "clean") -> RunRequest:
    """A request of the small config."""
    return RunRequest(submitted_config(path, submit, *overrides), store, last_stage=last_stage)


def owners(store: str, run_id: str) -> list[bool]:
    """By each fencing number, whether a job had it."""
    held = RunStore(store).claims(run_id)
    return [bool(JobFolder(RunStore(store).folder, run_id).request(number)) for number in range(1, held.highest() + 1)]


def run_session(of: RunRequest) -> tuple[RunSession | SubmittedSession, Diary]:
    """Execute a request stage by stage, by jobs if its config says so."""
    diary = Diary()
    session = submitted.begin_session(of, diary)
    with session.closing():
        for stage in session.stages:
            session.execute(stage)
    return session, diary
