"""Runs on a real Ray cluster with a token, by the command line: each command is a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from infra.ray_jobs.logs import LogReader
from infra.ray_jobs.requests import JobFolder
from infra.store.runs import RunStore
from tests.flows.mini import digests, mini_config, mini_values, run_config, write_corpus
from tests.infra.ray_jobs.ray_cluster import RayCluster, ray_cluster

pytestmark = pytest.mark.slow

LONG = ("--until", "pretrain", "--set", "pretrain.tokens=2000000", "--set", "pretrain.workers=1")
"""Minutes of training by one worker of Ray Train, which holds a placement group."""
RESOURCES = """
import json, sys, time, ray
from ray.util.state import list_actors
ray.init(sys.argv[1], logging_level="ERROR", log_to_driver=False)
for _ in range(100):
    total, free = ray.cluster_resources(), ray.available_resources()
    if total.get("CPU") == free.get("CPU"):
        break
    time.sleep(0.1)
actors = [actor.class_name for actor in list_actors(sys.argv[2], filters=[("state", "!=", "DEAD")])]
print(json.dumps([total["CPU"], free.get("CPU"), actors]))
"""


class Commands:
    """`headrace` with a store and a config of its own."""

    def __init__(self, cluster: RayCluster, folder: Path) -> None:
        self.cluster, self.store, self.started = cluster, str(folder / "store"), []
        self.corpus = write_corpus(folder / "texts")
        values = mini_values(self.corpus)
        values["execution"] |= {
            "address": cluster.dashboard, "shared_filesystem": True, "python": sys.executable, "follow_seconds": 0.5,
        }  # fmt: skip
        self.config = str(folder / "mini.yaml")
        Path(self.config).write_text(yaml.safe_dump(values))
        self.environment = {**cluster.environment, "HEADRACE_HOME": self.store, "PREFECT_HOME": str(folder / "prefect")}

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """A command in the background."""
        command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
        started = subprocess.Popen(
            command, env=self.environment | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.started.append(started)
        return started

    def __call__(self, *arguments: str, status: int = 0, **environment: str) -> str:
        """Output of a command."""
        started = self.start(*arguments, **environment)
        output, _ = started.communicate(timeout=240)
        assert started.returncode == status, output
        return output

    @property
    def runs(self) -> RunStore:
        return RunStore(self.store)

    def log(self, first: int = 0) -> str:
        """Text that the jobs of the newest run have printed, from a fencing number on."""
        newest = self.runs.all()[:1]
        return "".join(LogReader(self.runs.folder, newest[0].run_id, first).new_text()) if newest else ""

    def nothing_is_left(self) -> None:
        """Every processor of the cluster is free, and no actor of Ray Train is alive."""
        script = [sys.executable, "-c", RESOURCES, f"127.0.0.1:{self.cluster.port}", self.cluster.dashboard]
        done = subprocess.run(script, env=self.cluster.environment, capture_output=True, text=True, timeout=120)
        total, free, actors = json.loads(done.stdout.splitlines()[-1])
        assert (free, actors) == (total, ["_AutoscalingCoordinatorActor"] * len(actors)), done.stderr


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as started:
        yield started


@pytest.fixture
def headrace(cluster: RayCluster, tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(cluster, tmp_path)
    yield commands
    for started in commands.started:
        started.kill()
        started.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


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
    wait_for(lambda: "train: " in headrace.log(), 200)
    run_id = headrace.runs.get("latest").run_id
    flow.send_signal(signal.SIGTERM)
    output, _ = flow.communicate(timeout=120)
    assert "tokenize   [" in output, "the log is shown as it comes"
    record = headrace.runs.get("latest")
    assert record.status == "interrupted"
    inline, _ = run_config(str(tmp_path / "inline"), mini_config(headrace.corpus), last_stage="tokenize")
    assert digests(headrace.store, run_id) == digests(str(tmp_path / "inline"), inline.run_id)
    headrace.nothing_is_left()


def test_a_killed_submitter_and_a_killed_driver_are_replaced_and_a_cancel_leaves_nothing(headrace):
    whole = ("run", headrace.config, "--on", "ray", "--set", "execution.submit=run", *LONG[:-1], "pretrain.workers=0")
    killed = headrace.start(*whole)
    wait_for(lambda: "train: step" in headrace.log(), 200)
    run_id = headrace.runs.get("latest").run_id
    [first] = JobFolder(headrace.runs.folder, run_id).all()
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()

    adopter = headrace.start(*whole)
    assert adopter.stdout is not None
    assert "is in progress" in next(line for line in adopter.stdout if run_id in line)
    claims = headrace.runs.claims(run_id)
    driver = claims.owner(claims.highest())
    assert (claims.highest(), driver.job) == (first.number, first.submission_id), "the job went on"
    os.kill(driver.process.pid, signal.SIGKILL)
    number = first.number + 2  # the submitter took it back between
    wait_for(lambda: "train: step" in headrace.log(number))
    assert claims.owner(number).job == f"headrace-{run_id}-{number}-run"

    assert f"run {run_id} is interrupted" in headrace("cancel", "latest")
    headrace.nothing_is_left()
    output, _ = adopter.communicate(timeout=60)
    assert adopter.returncode == 2, output
    assert headrace.runs.get("latest").status == "interrupted"
