"""Dashboard, head and nodes of a real Ray cluster are lost while a run works on it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.jobs.commands import MAIN, WHOLE, Commands
from tests.infra.ray_jobs.ray_cluster import RayCluster, ray_cluster
from tests.processes import WAIT_SECONDS, is_gone, wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
IMPATIENT = f"import infra.ray_jobs.following as following; following.UNREACHABLE_SECONDS = 20.0; {MAIN}"

TWO_PARTITIONS = """
import sys, time
from pathlib import Path
from data_schemas.errors import EnvironmentProblem
from infra.workers.ray_partitions import TaskNeeds, run_on_ray

def wait(folder):
    Path(folder, f"started-{time.monotonic_ns()}").touch()
    while True:
        time.sleep(0.1)

try:
    list(run_on_ray(wait, ["a", "b"], [sys.argv[1]] * 2, TaskNeeds(), None))
except EnvironmentProblem as error:
    print(f"error: {error}")
"""
OTHER_VERSION = r"node [\d.]+ has Headrace \S+ \(code (\w+)\), and .* has Headrace \S+ \(code (\w+)\): install"


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(cpus=1) as started:
        yield started


@pytest.fixture
def headrace(cluster: RayCluster, tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(cluster, tmp_path)
    commands.prepare()
    yield commands
    commands.close()


def test_a_job_outlives_its_dashboard_and_is_replaced_when_its_head_is(headrace, cluster):
    flow = headrace.start("run", headrace.config, *WHOLE, script=IMPATIENT)
    wait_for(headrace.checkpoint)
    [job] = headrace.jobs()
    driver, claims = headrace.driver(job.number), headrace.runs.claims(headrace.run_id)

    cluster.kill_dashboard()
    wait_for(lambda: "waits for it, or for the job's heartbeat to stop" in headrace.printed(flow))
    step = headrace.checkpoint()
    wait_for(lambda: headrace.checkpoint() > step)
    cluster.restart_dashboard()
    wait_for(lambda: cluster.job_status(job.submission_id) == "RUNNING")
    assert claims.highest() == job.number, "nobody took the run from the job"

    cluster.kill_head()
    wait_for(lambda: is_gone(driver))
    step = headrace.checkpoint()
    cluster.start_head()
    wait_for(lambda: headrace.first_step(job.number + 2))
    assert headrace.first_step(job.number + 2) > step, "the retry continues from the last checkpoint"
    assert "is interrupted, and nothing of it is left" in headrace("cancel", "latest")
    headrace.nothing_is_left()
    headrace.ended(flow, status=2)


def test_a_job_whose_node_is_lost_waits_for_another_and_can_be_cancelled_while_it_waits(headrace, cluster):
    """The driver has the only accelerator of the cluster."""
    node = cluster.start_node("--num-cpus=1 --num-gpus=1")
    flow = headrace.start("run", headrace.config, *WHOLE, "--set", "execution.driver_gpus=1")
    wait_for(headrace.checkpoint)
    [job] = headrace.jobs()
    driver = headrace.driver(job.number)
    cluster.process(node, "raylet/raylet").kill()
    wait_for(lambda: is_gone(driver))
    second = f"headrace-{headrace.run_id}-{job.number + 2}-run"
    wait_for(lambda: cluster.job_status(second) == "PENDING")
    assert "nothing of it is left" in headrace("cancel", "latest")
    # Its supervisor fails, unless it is marked as stopped before that; None while the dashboard is busy.
    wait_for(lambda: cluster.job_status(second) in ("FAILED", "STOPPED"))
    headrace.nothing_is_left()
    headrace.ended(flow, status=130)  # it owned the run, as the job had not begun
    assert headrace.runs.get("latest").status == "interrupted"


def test_a_node_with_other_code_is_refused_also_if_it_joins_while_a_run_works(headrace, cluster, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(ROOT / "infra", other / "infra", ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("flows", "stages", "modeling", "data_schemas"):
        (other / package).symlink_to(ROOT / package)
    with (other / "infra/hardware.py").open("a") as file:
        file.write("# changed\n")
    environment = cluster.environment | {"RAY_ADDRESS": f"127.0.0.1:{cluster.port}"}
    driver = subprocess.Popen(  # Ray's workers import from the driver's folder first
        [sys.executable, "-c", TWO_PARTITIONS, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True,
        cwd=tmp_path,
    )  # fmt: skip
    try:
        wait_for(lambda: list(tmp_path.glob("started-*")))
        cluster.start_node("--num-cpus=1", PYTHONPATH=f"{other}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        output, _ = driver.communicate(timeout=WAIT_SECONDS)
    finally:
        driver.kill()
        driver.wait()
    late = re.search(OTHER_VERSION, output)
    assert late and late[1] != late[2], output
    assert len(list(tmp_path.glob("started-*"))) == 1

    headrace("submit", headrace.config, "--until", "ingest", "--fresh")
    refused = headrace("attach", "latest", status=2)
    early = re.search(OTHER_VERSION, " ".join(refused.split()))
    assert early and early.groups() == late.groups(), refused
    record = headrace.runs.get("latest")
    assert (record.status, record.stages) == ("failed", {}) and "has Headrace" in record.message
