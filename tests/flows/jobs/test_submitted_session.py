import signal
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from data_schemas.errors import (
    ConfigError,
    EnvironmentProblem,
    FencedError,
    InputDataError,
    JobLostError,
    NotFoundError,
)
from flows.commands.jobs import attach, print_logs, submit
from flows.commands.panels.run import _execute
from flows.jobs import entry
from flows.jobs.cancelling import cancel, stop_jobs_of_flow_run
from flows.jobs.requests import job_values, request_of
from flows.jobs.submitted import SubmittedSession, begin_session
from flows.runs.earlier import continuation
from flows.runs.request import RunRequest, rerun_request
from flows.runs.session import RunSession
from flows.runs.view import SilentView
from infra.ray_jobs.client import JobState
from infra.ray_jobs.dashboard import ClusterAway
from infra.ray_jobs.requests import JobFolder
from infra.store import claims
from infra.store.runs import RunStore, close
from infra.workers.capacity import Capacity
from stages.clean.stage import CleanStage
from tests.flows.jobs.in_process import request, submitted_config, use_cluster
from tests.flows.mini import Diary, digests, mini_config, run, run_config, write_corpus


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "texts", documents=10)


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "store")


def owners(store, run_id):
    """By each fencing number, whether a job had it."""
    held = RunStore(store).claims(run_id)
    return [bool(JobFolder(RunStore(store).folder, run_id).request(number)) for number in range(1, held.highest() + 1)]


def test_stages_by_jobs_and_one_job_for_all_make_what_one_process_makes(tmp_path, store, corpus, monkeypatch):
    inline, _ = run_config(str(tmp_path / "inline"), mini_config(corpus), last_stage="clean")
    expected = digests(str(tmp_path / "inline"), inline.run_id)

    use_cluster(monkeypatch, store)
    session, diary = run_session(request(corpus, store, "stage"))
    assert digests(store, session.run_id) == expected
    assert diary.actions == {"ingest": "run", "clean": "run"}
    assert owners(store, session.run_id) == [False, True, False, True, False]
    record = RunStore(store).get(session.run_id)
    assert (record.status, record.claim) == ("finished", 5)

    whole = str(tmp_path / "whole")
    use_cluster(monkeypatch, whole)
    view = Diary()
    session = SubmittedSession.begin(request(corpus, whole, "run"), view)
    session.execute_all()
    session.close("finished")
    assert digests(whole, session.run_id) == expected
    assert view.actions == {"ingest": "run", "clean": "run"}
    assert owners(whole, session.run_id) == [False, True]
    assert RunStore(whole).folder.names(f"../reports/{session.run_id}") == ["report.html"]


def run_session(of):
    diary = Diary()
    session = begin_session(of, diary)
    with session.closing():
        for stage in session.stages:
            session.execute(stage)
    return session, diary


def test_settings_of_execution_are_part_of_no_key_and_no_digest(corpus, store):
    here, there = mini_config(corpus), submitted_config(corpus, "stage", "execution.address=http://a:1")
    assert RunRequest(here, store).config_digest == RunRequest(there, store).config_digest
    there = RunRequest(there, store, first="clean", forced="clean", last_stage="dedup", keep_versions=True)
    back = request_of(job_values(there), store, "r")
    assert back.config.execution.submit == "none", "a job submits nothing"
    assert (back.config_digest, back.planned, back.forced_stages) == (
        there.config_digest, there.planned, there.forced_stages,
    )  # fmt: skip


def test_a_rerun_by_jobs_takes_the_artifacts_of_its_base(corpus, store, monkeypatch):
    base, _ = run_config(store, mini_config(corpus), last_stage="clean")
    cluster = use_cluster(monkeypatch, store)
    again = rerun_request(store, base.record, submitted_config(corpus, "stage"), "clean")
    session, diary = run_session(again)
    assert [name.rpartition("-")[2] for name in cluster.states] == ["clean"], "no job for what is taken"
    assert diary.actions == {"ingest": "reuse", "clean": "run"}
    assert digests(store, session.run_id) == digests(store, base.run_id)


def test_an_error_of_a_job_is_that_of_the_run(corpus, store, monkeypatch):
    use_cluster(monkeypatch, store)
    with pytest.raises(InputDataError, match="absent"):
        run_session(request("/absent/*.jsonl", store, "stage"))
    record = RunStore(store).get("latest")
    assert (record.status, record.claim) == ("failed", 3)
    assert "absent" in record.message

    session = SubmittedSession.begin(request("/absent/*.jsonl", store, "run"))
    assert session.run_id == record.run_id
    with pytest.raises(InputDataError, match="absent"):
        session.execute_all()
    session.close("failed", "a record that the job has closed stays as it is")
    assert "absent" in RunStore(store).get("latest").message


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


def test_what_the_store_has_needs_no_job(corpus, store, monkeypatch):
    base, _ = run_config(store, mini_config(corpus), last_stage="clean")
    cluster = use_cluster(monkeypatch, store)
    session, diary = run_session(request(corpus, store, "stage", "execution.address=http://a:1", last_stage="clean"))
    assert [name.rpartition("-")[2] for name in cluster.states] == ["ingest"], "which sees the sources"
    assert diary.actions == {"ingest": "reuse", "clean": "reuse"}
    assert digests(store, session.run_id) == digests(store, base.run_id)
    assert session.record.claim == 3


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


@pytest.mark.parametrize("submit_as", ["run", "stage"])
def test_what_a_cluster_cannot_reach_and_what_must_not_reach_it(corpus, store, submit_as, monkeypatch):
    use_cluster(monkeypatch, store)
    local = RunRequest(mini_config(corpus, f"execution.submit={submit_as}"), store)
    with pytest.raises(ConfigError, match=r"is on this machine only.*set execution\.shared_filesystem=true"):
        SubmittedSession.begin(local)
    secret = request("sftp://me:secret@host/*.jsonl", store, submit_as)
    with pytest.raises(ConfigError, match="ingest has a URL with a password") as refusal:
        SubmittedSession.begin(secret)
    assert "secret" not in str(refusal.value)
    assert not RunStore(store).all()


def test_a_cluster_without_jobs_needs_a_shared_store_too(corpus, store, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(
        ConfigError, match=r"the nodes of the Ray cluster at RAY_ADDRESS=head:6379 would have to use it"
    ):
        RunSession.begin(RunRequest(mini_config(corpus, "execution.engine=ray"), store, last_stage="clean"))
    of = RunRequest(mini_config(corpus, "pretrain.workers=1"), store)
    with pytest.raises(ConfigError, match="RAY_ADDRESS=head:6379"):
        RunSession.begin(of)
    assert not RunStore(store).all()
    monkeypatch.setattr("flows.planning.planner.capacity_of", lambda *execution: Capacity(1, 1))  # no such cluster
    for overrides in (["execution.engine=ray", "execution.shared_filesystem=true"], []):
        session = RunSession.begin(RunRequest(mini_config(corpus, *overrides), store, last_stage="clean"))
        session.close("failed")


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


@pytest.mark.parametrize("submit_as", ["run", "stage"])
def test_a_job_applies_the_time_limit_of_each_stage(corpus, store, submit_as, monkeypatch):
    cluster = use_cluster(monkeypatch, store)
    monkeypatch.setattr(CleanStage, "run", lambda *_: threading.Event().wait(60))
    of = request(corpus, store, submit_as, "clean.timeout_seconds=0.2")
    session = SubmittedSession.begin(of)
    with pytest.raises(
        EnvironmentProblem, match=r"clean was stopped .*, 0\.2 seconds; .*--set clean\.timeout_seconds=0\.4"
    ):
        if submit_as == "run":
            session.execute_all()
        else:
            for stage in session.stages:
                session.execute(stage)
    session.close("failed")
    assert list(RunStore(store).get("latest").stages) == ["ingest"]
    assert "FAILED" in cluster.states.values()


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


def test_before_each_job_the_cluster_is_waited_for(corpus, store, monkeypatch):
    cluster, waits = use_cluster(monkeypatch, store), []
    cluster.wait_until_back = waits.append
    run_session(request(corpus, store, "stage"))
    assert len(waits) == 2

    def gone(report):
        raise ClusterAway("cannot reach it")

    cluster.wait_until_back = gone
    session = SubmittedSession.begin(request(corpus, store, "stage", "clean.languages=[en]"))
    with pytest.raises(ClusterAway):
        session.execute(session.stages[0])


def test_a_job_without_follower_that_cannot_begin_closes_its_run(corpus, store, monkeypatch):
    use_cluster(monkeypatch, store)

    def refuse():
        raise EnvironmentProblem("node 10.0.0.7 has another Headrace")

    monkeypatch.setattr(entry, "check_nodes", refuse)
    run_id, _ = submit(request(corpus, store, "run"), SilentView())
    record = attach(store, run_id, None)
    assert (record.status, record.message) == ("failed", "node 10.0.0.7 has another Headrace")


def test_who_attaches_learns_what_the_last_job_of_another_version_said(corpus, store, monkeypatch):
    cluster = use_cluster(monkeypatch, store)
    monkeypatch.setattr("flows.commands.jobs.RayJobs", lambda address: cluster)
    monkeypatch.setattr("flows.commands.jobs.BEAT_SECONDS", 0.05)
    monkeypatch.setattr(claims, "BEAT_SECONDS", 3600.0)
    monkeypatch.setattr(entry, "own_versions", lambda: {"Headrace": "0.0.1"})
    run_id, _ = submit(request(corpus, store, "run"), SilentView())
    with pytest.raises(EnvironmentProblem, match=r"any more \(its last job: node the head has Headrace 0\.0\.1, and"):
        attach(store, run_id, None)


def test_a_job_that_ends_after_its_token_expired_has_made_its_artifact(corpus, store, monkeypatch):
    """Heartbeat and result are in the store; the next job is refused, and the run resumes with a new token."""
    cluster = use_cluster(monkeypatch, store)
    monkeypatch.setattr("infra.ray_jobs.following.UNREACHABLE_SECONDS", 0.2)
    session = SubmittedSession.begin(request(corpus, store, "stage"))

    def refused(*_):
        raise EnvironmentProblem("the Ray cluster refuses the token")

    cluster.state = refused
    assert session.execute(session.stages[0]).action == "run"
    monkeypatch.setattr(cluster, "submit", refused)
    monkeypatch.setattr(cluster, "all", refused)
    with pytest.raises(EnvironmentProblem, match="refuses the token"):
        session.execute(session.stages[1])
    session.close("failed")
    monkeypatch.undo()
    cluster = use_cluster(monkeypatch, store)
    again, _ = run_session(request(corpus, store, "stage"))
    assert (again.run_id, again.record.status) == (session.run_id, "finished")
