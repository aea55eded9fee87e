"""Runs by jobs: the same bytes, errors and limits as in one process, and what a cluster must reach."""

import threading

import pytest

from data_schemas.errors import (
    ConfigError,
    EnvironmentProblem,
    InputDataError,
)
from flows.commands.jobs import attach, submit
from flows.jobs import entry
from flows.jobs.requests import job_values, request_of
from flows.jobs.submitted import SubmittedSession
from flows.runs.request import RunRequest, rerun_request
from flows.runs.session import RunSession
from flows.runs.view import SilentView
from infra.ray_jobs.dashboard import ClusterAway
from infra.store.runs import RunStore
from infra.workers.capacity import Capacity
from stages.clean.stage import CleanStage
from tests.flows.jobs.in_process import owners, request, run_session, submitted_config, use_cluster
from tests.flows.mini import Diary, digests, mini_config, run_config


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


def test_what_the_store_has_needs_no_job(corpus, store, monkeypatch):
    base, _ = run_config(store, mini_config(corpus), last_stage="clean")
    cluster = use_cluster(monkeypatch, store)
    session, diary = run_session(request(corpus, store, "stage", "execution.address=http://a:1", last_stage="clean"))
    assert [name.rpartition("-")[2] for name in cluster.states] == ["ingest"], "which sees the sources"
    assert diary.actions == {"ingest": "reuse", "clean": "reuse"}
    assert digests(store, session.run_id) == digests(store, base.run_id)
    assert session.record.claim == 3


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
