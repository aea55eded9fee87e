"""One owner of a run by jobs: dead jobs and submitters are replaced, living ones are not."""

import signal
import sys
import threading
from dataclasses import replace

import pytest

from data_schemas.errors import (
    EnvironmentProblem,
    FencedError,
    JobLostError,
)
from flows.commands.jobs import submit
from flows.commands.panels.run import _execute
from flows.jobs import entry
from flows.jobs.requests import request_of
from flows.jobs.submitted import SubmittedSession
from flows.runs.earlier import continuation
from flows.runs.session import RunSession
from flows.runs.view import SilentView
from infra.ray_jobs.dashboard import ClusterAway
from infra.ray_jobs.requests import JobFolder
from infra.store import claims
from infra.store.runs import RunStore
from stages.clean.stage import CleanStage
from tests.flows.jobs.in_process import request, use_cluster
from tests.flows.mini import Diary


def test_a_job_that_dies_is_followed_by_another_and_cannot_come_back(corpus, store, monkeypatch):
    """The first job is lost before it took its number, the second after; each wakes up later and commits nothing."""
    cluster = use_cluster(monkeypatch, store)
    session, late = SubmittedSession.begin(request(corpus, store, "stage")), []

    def dies_early(job):
        late.append(job)
        return "FAILED"

    def dies_late(job):
        of = request_of(job.run, store, job.run_id)
        late.append(RunSession.accept(of, job.run_id, job.number, job.stage, SilentView()))
        return "FAILED"

    for cluster.execute in (dies_early, dies_late):
        with pytest.raises(JobLostError, match=r"ingest: job headrace-.*-ingest ended without a word"):
            session.execute(session.stages[0])
    cluster.execute = cluster.executed
    session.execute(session.stages[0])
    assert cluster.executed(late[0]) == "FAILED"
    assert JobFolder(RunStore(store).folder, session.run_id).result(2).error == "FencedError"
    with pytest.raises(FencedError, match="was taken over"):
        late[1].execute(session.stages[0])
    session.close("finished")
    assert session.claim.number == 6, "the submitter uses up the number that the first job did not take"


def test_a_submitter_that_was_killed_is_replaced_by_the_next_that_follows_its_job(corpus, store, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.2)
    cluster = use_cluster(monkeypatch, store)
    killed, jobs = SubmittedSession.begin(request(corpus, store, "stage")), []
    killed.execute(killed.stages[0])
    cluster.execute = lambda job: jobs.append(job) or "PENDING"
    killed.hand_over("clean")
    killed._stop_heartbeat()

    view = Diary()
    session = SubmittedSession.begin(request(corpus, store, "stage"), view)
    assert session.run_id == killed.run_id
    assert "is in progress" in view.notes[0]
    [job] = jobs
    cluster.states[job.submission_id] = cluster.executed(job)  # it takes its number only now
    cluster.execute = None  # nothing else is submitted
    for stage in session.stages:
        session.execute(stage)
    session.close("finished")
    assert RunStore(store).get("latest").status == "finished"
    with pytest.raises(FencedError):
        killed._regain(job.number)


def test_of_two_that_submit_a_run_that_was_left_one_wins(corpus, store, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(claims, "MISSED_BEATS", 600)  # a beat that the machine's load delays is waited for
    use_cluster(monkeypatch, store)
    SubmittedSession.begin(request(corpus, store, "stage")).close("interrupted")
    first, second = (SubmittedSession.begin(request(corpus, store, "stage")) for _ in range(2))
    assert first.run_id != second.run_id, "the second is another run, as without jobs"
    runs = RunStore(store)
    runs.accept(first.run_id, first.claim.number + 1)
    with pytest.raises(FencedError, match=f"run {first.run_id} was handed to"):
        runs.accept(first.run_id, first.claim.number + 1)


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_a_run_that_was_left_to_a_job_is_not_taken_from_it(corpus, store, monkeypatch, status):
    """Its submitter is gone, as after headrace submit: only the cluster says that the job is in progress."""
    cluster = use_cluster(monkeypatch, store)
    addresses = []
    monkeypatch.setattr("infra.ray_jobs.in_progress.RayJobs", lambda address: addresses.append(address) or cluster)
    monkeypatch.setattr("infra.processes.ProcessIdentity.is_gone", True)
    cluster.execute = lambda job: status
    run_id, job = submit(request(corpus, store, "run"), SilentView())
    here = request(corpus, store, "none")
    with pytest.raises(
        EnvironmentProblem,
        match=rf"{job.submission_id} on the Ray cluster at http://cluster:8265, which w(aits|orks): .*attach {run_id};"
        rf".*cancel {run_id};.*--fresh",
    ):
        RunSession.begin(here)
    assert addresses == ["http://cluster:8265"]
    with monkeypatch.context() as patch, pytest.raises(EnvironmentProblem, match="which w"):
        patch.setitem(sys.modules, "flows.pipeline", None)  # importing it raises
        patch.setattr("flows.prefect_server.process.launch", lambda: None)
        _execute(here, as_json=False)
    line = continuation(RunStore(store), here)
    assert line == f"continues run {run_id} unless its job {job.submission_id} at {job.address} is in progress"

    elsewhere = use_cluster(monkeypatch, store)
    elsewhere.address = "http://other:8265"
    with pytest.raises(EnvironmentProblem, match="which w"):
        SubmittedSession.begin(request(corpus, store, "run"))
    fresh = RunSession.begin(replace(here, fresh=True))
    assert fresh.run_id != run_id
    fresh.close("failed")
    assert RunStore(store).claims(run_id).highest() == 1, "the job finds its number"


def test_a_run_whose_job_is_dead_or_out_of_reach_is_continued(corpus, store, monkeypatch):
    cluster = use_cluster(monkeypatch, store)
    monkeypatch.setattr("infra.ray_jobs.in_progress.RayJobs", lambda address: cluster)
    monkeypatch.setattr("infra.processes.ProcessIdentity.is_gone", True)
    cluster.execute = lambda job: "RUNNING"
    run_id, job = submit(request(corpus, store, "run"), SilentView())

    def state(problem):
        def refused(*_):
            raise problem

        monkeypatch.setattr(cluster, "state", refused)

    state(EnvironmentProblem("it needs a token"))
    with pytest.raises(EnvironmentProblem, match=f"{job.submission_id} .*, but it needs a token; .*attach {run_id}"):
        RunSession.begin(request(corpus, store, "none"))
    state(ClusterAway("no answer"))
    view = Diary()
    away = RunSession.begin(request(corpus, store, "none"), view)
    assert (away.run_id, away.claim.number) == (run_id, 2)
    assert "does not answer" in view.notes[0] and view.notes[1] == f"continues run {run_id}"
    assert cluster.executed(job) == "FAILED", "should it come back, the fence stops it"
    away.close("failed")

    monkeypatch.undo()
    cluster = use_cluster(monkeypatch, store)
    monkeypatch.setattr("infra.ray_jobs.in_progress.RayJobs", lambda address: cluster)
    monkeypatch.setattr("infra.processes.ProcessIdentity.is_gone", True)
    for status in ("FAILED", "STOPPED"):
        cluster.execute = lambda job, status=status: status
        assert submit(request(corpus, store, "run"), SilentView())[0] == run_id
        RunSession.begin(request(corpus, store, "none")).close("failed")


def test_a_job_whose_run_is_taken_over_ends_before_it_commits_anything(corpus, store, monkeypatch):
    """No cluster stops it: the store alone says that it works for nobody."""
    cluster = use_cluster(monkeypatch, store)
    monkeypatch.setattr(entry, "BEAT_SECONDS", 0.05)
    session = SubmittedSession.begin(request(corpus, store, "run"))
    before = signal.signal(signal.SIGTERM, entry._interrupt)

    def computes(*_):
        RunStore(store).fence(session.run_id)
        threading.Event().wait(60)

    try:
        monkeypatch.setattr(CleanStage, "run", computes)
        with pytest.raises(FencedError):
            session.execute_all()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list(cluster.states.values()) == ["FAILED"]
    result = JobFolder(RunStore(store).folder, session.run_id).result(2)
    assert result.error == "FencedError" and "was cancelled by" in result.message
    assert list(RunStore(store).get("latest").stages) == ["ingest"]
