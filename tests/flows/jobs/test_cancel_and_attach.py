"""Cancelling and interrupting runs by jobs, attaching to them, and their logs."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from data_schemas.errors import (
    EnvironmentProblem,
    FencedError,
    NotFoundError,
)
from flows.commands.jobs import attach, print_logs, submit
from flows.jobs import entry
from flows.jobs.cancelling import cancel, stop_jobs_of_flow_run
from flows.jobs.requests import request_of
from flows.jobs.submitted import SubmittedSession
from flows.runs.session import RunSession
from flows.runs.view import SilentView
from infra.ray_jobs.client import JobState
from infra.store import claims
from infra.store.runs import RunStore, close
from tests.flows.jobs.in_process import request, run_session, use_cluster
from tests.flows.mini import run


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, TimeoutError])
def test_whoever_interrupts_the_submitter_stops_the_job_which_commits_nothing(corpus, store, monkeypatch, interrupt):
    cluster = use_cluster(monkeypatch, store)
    session, jobs = SubmittedSession.begin(request(corpus, store, "stage")), []

    def takes_long(job):
        of = request_of(job.run, store, job.run_id)
        jobs.append(RunSession.accept(of, job.run_id, job.number, job.stage, SilentView()))
        return "RUNNING"

    def interrupted(*_):
        raise interrupt

    cluster.execute = takes_long
    monkeypatch.setattr("infra.ray_jobs.following.pass_on", interrupted)
    with pytest.raises(interrupt):
        session.execute(session.stages[0])
    assert cluster.stops == [f"headrace-{session.run_id}-2-ingest"]
    with pytest.raises(FencedError, match="was cancelled by"):
        jobs[0].execute(session.stages[0])
    session.close("interrupted")
    record = RunStore(store).get("latest")
    assert (record.status, record.claim, record.stages) == ("interrupted", 3, {})


def test_a_submitter_that_missed_the_signal_of_cancel_ends_all_the_same(corpus, store, monkeypatch):
    """Its job was lost, and would be tried again."""
    cluster = use_cluster(monkeypatch, store)
    monkeypatch.setattr("flows.jobs.cancelling.RayJobs", lambda address: cluster)
    session = SubmittedSession.begin(request(corpus, store, "run"))

    cluster.execute = lambda job: "FAILED"
    monkeypatch.setattr(
        "infra.ray_jobs.following.pass_on", lambda *_: cancel(store, session.run_id, None, lambda line: None)
    )
    with pytest.raises(KeyboardInterrupt, match=f"run {session.run_id} was cancelled by"):
        session.execute_all()
    assert RunStore(store).get("latest").status == "interrupted"


def test_cancel_attach_and_logs_need_the_store_and_the_cluster_only(corpus, store, monkeypatch, capsys):
    cluster = use_cluster(monkeypatch, store)
    monkeypatch.setattr("flows.jobs.cancelling.RayJobs", lambda address: cluster)
    monkeypatch.setattr("flows.commands.jobs.POLL_SECONDS", 0.01)
    cluster.execute = lambda job: "RUNNING"
    run_id, job = submit(request(corpus, store, "run"), SilentView())
    assert submit(request(corpus, store, "run"), SilentView()) == (run_id, job), "it is in progress already"
    folder = RunStore(store).folder
    folder.write(f"{run_id}/logs/000002/000001.txt", b"a line\n")
    print_logs(store, run_id)
    assert capsys.readouterr().out == "a line\n"

    lines: list[str] = []
    record = cancel(store, run_id, None, lines.append)
    assert (record.status, record.message) == ("interrupted", "cancelled")
    assert f"stops job {job.submission_id}" in lines
    assert cluster.executed(job) == "FAILED", "a job that starts late has no number to take"
    assert attach(store, run_id, None).status == "interrupted"
    cancel(store, run_id, None, lines.append)  # again: nothing to do

    session, _ = run(request(corpus, store, "none"))
    assert session.run_id == run_id, "the run continues, here too"


def test_who_attaches_sees_what_a_job_prints_after_it_has_ended_its_run(corpus, store, monkeypatch, capsys):
    """The report is written then, and the last chunk of the log at the very end."""
    cluster = use_cluster(monkeypatch, store)
    monkeypatch.setattr("flows.commands.jobs.RayJobs", lambda address: cluster)
    cluster.execute = lambda job: "RUNNING"
    run_id, job = submit(request(corpus, store, "run"), SilentView())
    runs = RunStore(store)

    def end_job():
        runs.folder.write(f"{run_id}/logs/000002/000001.txt", b"the last line\n")
        cluster.states[job.submission_id] = "SUCCEEDED"

    finish = [lambda: runs.save(close(runs.get(run_id), "finished"))]
    events = iter([*finish, *[lambda: None] * 5, end_job])
    clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: next(events)())
    monkeypatch.setattr("flows.commands.jobs.time", clock)
    assert attach(store, run_id, None).status == "finished"
    assert capsys.readouterr().out == "the last line\n"


def test_a_flow_run_whose_process_died_leaves_no_job(corpus, store, monkeypatch):
    cluster = use_cluster(monkeypatch, store)
    monkeypatch.setattr("flows.jobs.cancelling.RayJobs", lambda address: cluster)
    cluster.execute = lambda job: "RUNNING"
    of = replace(request(corpus, store, "stage"), flow_run="00000000-0000-0000-0000-000000000001")
    killed = SubmittedSession.begin(of)
    job = killed.hand_over("ingest")
    flow_run = SimpleNamespace(id=of.flow_run, parameters={"store": store})
    stop_jobs_of_flow_run(None, SimpleNamespace(id="another", parameters={"store": store}), None)
    assert not cluster.stops
    stop_jobs_of_flow_run(None, flow_run, None)
    assert cluster.stops == [job.submission_id]
    assert RunStore(store).get("latest").status == "interrupted"
    cluster.execute = cluster.executed
    session, _ = run_session(of)
    assert session.run_id == killed.run_id, "a retry of the flow run continues its run"


def test_a_run_nobody_works_on_any_more_is_no_run_to_attach_to(corpus, store, monkeypatch):
    cluster = use_cluster(monkeypatch, store)
    monkeypatch.setattr("flows.commands.jobs.RayJobs", lambda address: cluster)
    monkeypatch.setattr("flows.commands.jobs.POLL_SECONDS", 0.01)
    monkeypatch.setattr("flows.commands.jobs.BEAT_SECONDS", 0.05)
    monkeypatch.setattr(claims, "BEAT_SECONDS", 3600.0)
    cluster.execute = lambda job: "FAILED"
    cluster.message = "Job entrypoint command failed with exit code 127, last logs:\npython3.99: not found\n"
    run_id, job = submit(request(corpus, store, "run"), SilentView())
    with pytest.raises(
        EnvironmentProblem,
        match=rf"nobody works on run {run_id} any more \(its last job: .*127.*: python3\.99: not found\):",
    ):
        attach(store, run_id, None)
    with pytest.raises(NotFoundError, match=f"ray job logs --address {job.address} {job.submission_id}"):
        print_logs(store, run_id)


def test_who_attaches_to_a_job_that_waits_learns_why(corpus, store, monkeypatch, capsys):
    cluster = use_cluster(monkeypatch, store)
    monkeypatch.setattr("flows.commands.jobs.RayJobs", lambda address: cluster)
    monkeypatch.setattr("flows.commands.jobs.POLL_SECONDS", 0.01)
    monkeypatch.setattr("flows.commands.jobs.BEAT_SECONDS", 0.001)
    monkeypatch.setattr("infra.ray_jobs.following.START_SECONDS", 0.0)
    monkeypatch.setattr(claims, "BEAT_SECONDS", 3600.0)
    cluster.execute, cluster.message = lambda job: "PENDING", "Job has not started yet.\nIt may be waiting for GPUs."
    run_id, job = submit(request(corpus, store, "run"), SilentView())
    looks = []

    def answered(*_):
        looks.append(JobState(job.submission_id, "PENDING", cluster.message))
        if len(looks) == 3:
            cluster.executed(job)
        return looks[-1]

    monkeypatch.setattr(cluster, "state", answered)
    monkeypatch.setattr("flows.commands.jobs.LAST_LINES_SECONDS", 0.0)
    assert attach(store, run_id, None).status == "finished"
    line = f"job {job.submission_id} waits: Job has not started yet. It may be waiting for GPUs."
    assert capsys.readouterr().out.splitlines().count(line) == 1


def test_a_cancel_during_the_hand_over_stops_the_job_that_it_did_not_see(corpus, store, monkeypatch):
    """It takes the job's number after the request was written, and finds no job on the cluster."""
    cluster = use_cluster(monkeypatch, store)
    monkeypatch.setattr("flows.jobs.cancelling.RayJobs", lambda address: cluster)
    session, submit_job = SubmittedSession.begin(request(corpus, store, "stage")), cluster.submit

    def cancelled_before(*arguments):
        cancel(store, session.run_id, None, pytest.fail)
        submit_job(*arguments)

    cluster.submit, cluster.execute = cancelled_before, lambda job: "PENDING"
    with pytest.raises(FencedError, match="was cancelled by"):
        session.execute(session.stages[0])
    assert cluster.stops == [f"headrace-{session.run_id}-2-ingest"]
    assert RunStore(store).get("latest").status == "interrupted"


def test_who_attaches_learns_what_the_last_job_of_another_version_said(corpus, store, monkeypatch):
    cluster = use_cluster(monkeypatch, store)
    monkeypatch.setattr("flows.commands.jobs.RayJobs", lambda address: cluster)
    monkeypatch.setattr("flows.commands.jobs.BEAT_SECONDS", 0.05)
    monkeypatch.setattr(claims, "BEAT_SECONDS", 3600.0)
    monkeypatch.setattr(entry, "own_versions", lambda: {"Headrace": "0.0.1"})
    run_id, _ = submit(request(corpus, store, "run"), SilentView())
    with pytest.raises(EnvironmentProblem, match=r"any more \(its last job: node the head has Headrace 0\.0\.1, and"):
        attach(store, run_id, None)
