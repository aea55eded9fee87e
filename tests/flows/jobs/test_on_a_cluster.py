"""Runs on a real Ray cluster with a token, by the command line: each command is a process of its own."""

import fnmatch
import json
import os
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.jobs import dying
from tests.flows.jobs.commands import ENDLESS, MAIN, WHOLE, Commands
from tests.flows.mini import digests, mini_config, run_config
from tests.flows.test_rerun_matrix import CELLS
from tests.infra.ray_jobs.ray_cluster import RayCluster, ray_cluster
from tests.processes import WAIT_SECONDS, wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
LONG = ("--until", "pretrain", "--set", f"pretrain.tokens={ENDLESS}", "--set", "pretrain.workers=1")
"""Training by one worker of Ray Train, which holds a placement group."""
PERSISTENT = f"import flows.stage_tasks as tasks; tasks.RETRY_DELAYS_SECONDS = [0.0] * 5; {MAIN}"
SEVERAL = """
import json, sys
from flows.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        assert not end.code
"""
"""Several commands in one process, with one temporary Prefect server."""
BROKEN_OFF = """
import asyncio, sys, time, ray
from ray.dashboard.modules.job.common import JobInfo, JobInfoStorageClient, JobStatus
ray.init(sys.argv[1], log_to_driver=False)
jobs = JobInfoStorageClient(ray._private.worker.global_worker.gcs_client)
tags = {"headrace_run": sys.argv[2], "headrace_python": sys.executable}
job = JobInfo(status=JobStatus.PENDING, entrypoint="true", start_time=int(time.time() * 1000), metadata=tags)
asyncio.run(jobs.put_info("broken-off", job))
"""
"""Record that Ray keeps of a job whose submission the client, or a proxy, gave up before its actor was created."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as started:
        yield started


@pytest.fixture
def headrace(cluster: RayCluster, tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(cluster, tmp_path)
    yield commands
    commands.close()


def test_a_run_submitted_whole_makes_what_one_process_makes_and_leaves_its_log(headrace, tmp_path):
    answer = json.loads(headrace("submit", headrace.config, "--until", "tokenize", "--json").splitlines()[-1])
    headrace("attach", answer["run_id"])
    inline, _ = run_config(str(tmp_path / "inline"), mini_config(headrace.corpus), last_stage="tokenize")
    assert digests(headrace.store, answer["run_id"]) == digests(str(tmp_path / "inline"), inline.run_id)
    gone = {"RAY_AUTH_TOKEN": "", "RAY_AUTH_MODE": ""}
    assert "tokenize   done in" in headrace("logs", "latest", **gone), "no cluster is needed"

    wrong = headrace("submit", headrace.config, "--fresh", status=2, RAY_AUTH_TOKEN="0" * 64)
    assert f"error: the Ray cluster at {headrace.cluster.dashboard} refuses the token: set RAY_AUTH_MODE" in wrong
    local = headrace("submit", headrace.config, "--set", "execution.shared_filesystem=false", status=2)
    assert "is on this machine only" in local
    other = headrace("submit", headrace.config, "--set", "execution.python=/no/python", "--set", "name=other")
    with pytest.raises(AssertionError, match="nobody works on run"):
        headrace("attach", "latest", status=0)
    assert "follow it with" in other
    assert len(headrace.runs.all()) == 2


def test_a_flow_that_is_terminated_stops_its_job_and_leaves_nothing(headrace, tmp_path):
    """SIGTERM is what a worker of Prefect sends to cancel a flow run."""
    flow = headrace.start("run", headrace.config, "--on", "ray", *LONG)
    wait_for(lambda: "train: " in headrace.log())
    run_id = headrace.run_id
    flow.send_signal(signal.SIGTERM)
    flow.wait(WAIT_SECONDS)
    assert "tokenize   [" in headrace.printed(flow), "the log is shown as it comes"
    record = headrace.runs.get("latest")
    assert record.status == "interrupted"
    inline, _ = run_config(str(tmp_path / "inline"), mini_config(headrace.corpus), last_stage="tokenize")
    assert digests(headrace.store, run_id) == digests(str(tmp_path / "inline"), inline.run_id)
    headrace.nothing_is_left()


def test_a_killed_submitter_and_a_killed_driver_are_replaced_and_a_cancel_leaves_nothing(headrace):
    whole = ("run", headrace.config, *WHOLE)
    killed = headrace.start(*whole)
    wait_for(lambda: "train: step" in headrace.log())
    run_id = headrace.run_id
    [first] = headrace.jobs()
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()

    adopter = headrace.start(*whole)
    wait_for(lambda: f"continues run {run_id}, whose job" in headrace.printed(adopter))
    claims = headrace.runs.claims(run_id)
    driver = claims.owner(claims.highest())
    assert (claims.highest(), driver.job) == (first.number, first.submission_id), "the job went on"
    os.kill(driver.process.pid, signal.SIGKILL)
    number = first.number + 2  # the submitter took it back between
    wait_for(lambda: "train: step" in headrace.log(number))
    assert claims.owner(number).job == f"headrace-{run_id}-{number}-run"

    assert f"run {run_id} is interrupted" in headrace("cancel", "latest")
    headrace.nothing_is_left()
    headrace.ended(adopter, status=2)
    assert headrace.runs.get("latest").status == "interrupted"


def test_a_job_whose_submission_broke_off_is_stopped_and_not_waited_for(cluster):
    address = f"127.0.0.1:{cluster.port}"
    subprocess.run(
        [sys.executable, "-c", BROKEN_OFF, address, "some-run-1234"], env=cluster.environment, check=True, timeout=120
    )
    assert cluster.job_status("broken-off") == "PENDING"
    connect = f"from infra.ray_jobs import cancel, client; jobs = client.RayJobs({cluster.dashboard!r})"
    stop = f"{connect}; cancel.stop_jobs(jobs, 'some-run-1234', stop_seconds=240)"
    subprocess.run([sys.executable, "-c", stop], env=cluster.environment, check=True, timeout=300)
    assert cluster.job_status("broken-off") == "STOPPED"


def test_a_job_that_is_killed_at_each_milestone_of_a_run_continues_where_it_was(headrace, tmp_path):
    """By the retries of Prefect's task: at a partition, a training step, a compression pass, items of the benchmark."""
    lives = headrace.folder / "lives"
    lives.mkdir()
    python = (
        f"env PYTHONPATH={shlex.quote(str(ROOT))} {sys.executable} -m tests.flows.jobs.dying {shlex.quote(str(lives))}"
    )
    options = ("--on", "ray", "--set", "execution.submit=run", "--set", f"execution.python={python}")
    headrace.ended(headrace.start("run", headrace.config, *options, script=PERSISTENT))
    written = dying.writes(lives)
    milestones = [(lives / name).exists() for name in dying.MILESTONES]
    assert (len(written), all(milestones)) == (len(milestones) + 1, True)
    markers = ("*/parts/*.json", "*/complete.json", "*/work/pass-?/measurement.json", "*/work/answers/*")
    for marker in markers:
        counts = Counter(path for life in written for path in life if fnmatch.fnmatch(path, marker))
        assert len(counts) > 2 and set(counts.values()) == {1}, f"nothing is done twice: {counts}"
    record = headrace.runs.get("latest")
    assert (record.status, len(headrace.runs.all())) == ("finished", 1)
    inline, _ = run_config(str(tmp_path / "inline"), mini_config(headrace.corpus), last_stage="compress")
    expected = digests(str(tmp_path / "inline"), inline.run_id)
    assert {name: digests(headrace.store, record.run_id)[name] for name in expected} == expected


def test_reruns_as_jobs(headrace):
    """Each cell of the matrix, all but the first as one job."""
    base, _ = run_config(headrace.store, mini_config(headrace.corpus), last_stage="dedup")
    submits = ("stage", "run", "run", "run")
    commands = [
        ["rerun", *cell.options, "--run", base.run_id, *headrace.on_ray(submit)]
        for cell, submit in zip(CELLS.values(), submits, strict=True)
    ]
    headrace.ended(headrace.start(json.dumps(commands), script=SEVERAL))
    records = [record for record in reversed(headrace.runs.all()) if record.run_id != base.run_id]
    for record, cell in zip(records, CELLS.values(), strict=True):
        assert {name: outcome.action for name, outcome in record.stages.items()} == cell.actions
        assert record.status == "finished"
