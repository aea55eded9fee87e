"""Deployments on a real Prefect server with four workers: PostgreSQL if it is installed, else SQLite."""

import http.server
import json
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_schemas.manifest import RunRecord
from flows.config.run_config import build_run_config
from infra.ray_jobs.requests import JobFolder
from infra.store.runs import RunStore, process_of
from stages.registry import STAGES
from tests.flows.jobs.commands import ENDLESS
from tests.flows.mini import mini_values, run_config, write_corpus
from tests.flows.real_prefect import CHECKOUT, Server, family, postgres, postgres_binaries, serve, stop, workers
from tests.flows.test_command_line import HEADRACE
from tests.flows.test_rerun_matrix import CELLS
from tests.infra.ray_jobs.ray_cluster import ray_cluster
from tests.processes import WAIT_SECONDS, is_gone, working
from tests.processes import wait_for as wait_for_often

pytestmark = pytest.mark.slow
NAMES = [stage.name for stage in STAGES]
LIMIT = "headrace-accelerator"
TOKEN = secrets.token_hex(32)
"""Of Ray clusters."""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """A server with four workers."""
    with ExitStack() as stack:
        database = stack.enter_context(postgres()) if postgres_binaries() else None
        tokens = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        running = stack.enter_context(serve(tmp_path_factory.mktemp("prefect"), database, **tokens))
        stack.enter_context(workers(running, 4))
        yield running


@pytest.fixture
def mini(tmp_path) -> dict[str, Any]:
    """A small config."""
    return mini_values(write_corpus(tmp_path / "texts"))


def wait_for(condition: Callable[[], object]) -> None:
    """Wait, also on a busy machine, without occupying the server."""
    wait_for_often(condition, poll_seconds=0.5)


def only_run(store: Path) -> RunRecord:
    [record] = RunStore(str(store)).all()
    return record


def checkpoints(store: Path) -> list[Path]:
    return list(store.glob("pretrain/*/*/work/train/*/complete.json"))


def last_step(store: Path) -> int:
    return max(int(path.parent.name.rpartition("-")[2]) for path in checkpoints(store))


@pytest.fixture
def meeting(mini, tmp_path) -> Iterator[str]:
    """URL of the corpus, `<url>/<name>/part-0.jsonl.gz`, which is served when four names have been requested."""
    names, all_are_here = set[str](), threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            names.add(path.split("/")[1])
            if len(names) == 4:
                all_are_here.set()
            all_are_here.wait(WAIT_SECONDS)
            return f"{tmp_path}/texts/{Path(path).name}"

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        all_are_here.set()
        running.shutdown()


def test_four_workers_run_deployments_at_once(server, mini, meeting, tmp_path):
    """Each run waits in ingest for the three others."""
    flow_runs = [
        server.run(
            "headrace/pipeline", store=f"{tmp_path}/{number}", until="clean",
            config={**mini, "ingest": {**mini["ingest"], "path": f"{meeting}/{number}/part-0.jsonl.gz"}},
        )
        for number in range(4)
    ]  # fmt: skip
    for flow_run in flow_runs:
        server.wait(flow_run, "COMPLETED")
    assert len({only_run(tmp_path / str(number)).pid for number in range(4)}) == 4
    if postgres_binaries():
        assert "database is locked" not in server.log


def test_reruns_as_deployments(server, mini, tmp_path):
    """The matrix of reruns, all at once on one store."""
    store = str(tmp_path / "store")
    base, _ = run_config(store, build_run_config(mini, "mini"), last_stage="dedup")
    flow_runs = {
        name: server.run("headrace-rerun/rerun", **cell.parameters, run=base.run_id, store=store)
        for name, cell in CELLS.items()
    }
    for name, flow_run in flow_runs.items():
        server.wait(flow_run, "COMPLETED")
        record = RunStore(store).of_flow_run(flow_run)
        assert record is not None and record.base_run == base.run_id
        assert {stage: outcome.action for stage, outcome in record.stages.items()} == CELLS[name].actions, name


def test_commands_and_scripts_report_tasks_cached_states_and_artifacts(server, mini, tmp_path):
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(mini))
    environment = server.environment | {"HEADRACE_HOME": str(tmp_path / "store")}
    for _ in range(2):
        command = [HEADRACE, "run", "mini.yaml", "--until", "clean"]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=WAIT_SECONDS, capture_output=True)
    ours = [run.run_id for run in RunStore(str(tmp_path / "store")).all()]

    def states() -> list[tuple[str, str]]:
        tasks = server.api("task_runs/filter", {"sort": "EXPECTED_START_TIME_DESC"})
        return sorted(
            (task["name"].split()[0], task["state_name"]) for task in tasks if any(run in task["name"] for run in ours)
        )

    expected = [("clean", "Cached"), ("clean", "Completed"), ("ingest", "Cached"), ("ingest", "Completed")]
    wait_for(lambda: states() == expected)  # the server records task states from events, a little later
    script = "from flows.stage_flows import clean_flow; clean_flow()"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True, timeout=WAIT_SECONDS)
    newest = RunStore(str(tmp_path / "store")).get("latest")
    assert (newest.config_name, newest.forced, list(newest.stages)) == ("mini", "clean", ["ingest", "clean"])
    artifacts = server.api("artifacts/filter", {})
    assert any("| documents out |" in row["data"] for row in artifacts if row["type"] == "markdown")


def test_forms_list_the_stages_and_refuse_others(server):
    for name, field in (("headrace/pipeline", "until"), ("headrace-rerun/rerun", "stage")):
        schema = server.api(f"deployments/name/{name}")["parameter_openapi_schema"]
        assert json.dumps(NAMES) in json.dumps(schema["properties"][field])
        refusal = server.prefect("deployment", "run", name, "--param", f"{field}=tokenise", expect=1)
        assert f"'tokenise' is not one of {NAMES}" in refusal
    schedules = server.api("deployments/name/headrace/pipeline")["schedules"]
    assert [schedule["active"] for schedule in schedules] == [False]
    automations = server.api("automations/filter", {})
    assert {row["name"]: row["enabled"] for row in automations} == {
        "headrace-crashed-without-heartbeat": True, "headrace-retry-crashed": False,
    }  # fmt: skip


def test_pretraining_waits_for_the_accelerator_and_killed_it_continues_when_retried(server, mini, tmp_path):
    slot = server.api(
        "v2/concurrency_limits/increment-with-lease",
        {"names": [LIMIT], "slots": 1, "mode": "concurrency", "lease_duration": 3600},
    )
    mini["pretrain"]["tokens"] = 262_144
    store = tmp_path / "store"
    parameters = {"config": mini, "store": str(store), "until": "pretrain", "fresh": True}
    flow_run = server.run("headrace/pipeline", **parameters)
    wait_for(lambda: f"pretrain waits for a slot of the concurrency limit {LIMIT}" in server.logs(flow_run))
    assert "pretrain" not in only_run(store).stages and not checkpoints(store)
    server.api("v2/concurrency_limits/decrement-with-lease", {"lease_id": slot["lease_id"]})

    process = server.process(flow_run)
    wait_for_often(lambda: checkpoints(store), poll_seconds=0.02)
    process.send_signal(signal.SIGKILL)
    server.wait_for_crash(flow_run)
    step = last_step(store)
    server.free_slots(LIMIT)
    assert "scheduled for retry" in server.prefect("flow-run", "retry", flow_run)
    server.wait(flow_run, "COMPLETED")
    record = only_run(store)
    assert (record.status, record.claim) == ("finished", 2), "the same run, for which another process worked"
    wait_for(lambda: f"continues run {record.run_id}" in server.logs(flow_run))  # sent in batches
    [manifest] = store.glob("pretrain/*/*/manifest.json")
    starts = json.loads(manifest.read_text())["metrics"]["starts"]
    assert starts[-1] >= step > 0, "it resumed from the last checkpoint"


def test_a_cancelled_deployment_has_stopped(server, mini, tmp_path):
    """Two Ray workers in the middle of training: the run is recorded, nothing of it lives, another may continue it."""
    mini["pretrain"] |= {"tokens": ENDLESS, "workers": 2, "micro_batch": 4}
    store = tmp_path / "store"
    flow_run = server.run("headrace/pipeline", config=mini, store=str(store), until="pretrain")
    wait_for(lambda: checkpoints(store))
    processes = family(server.process(flow_run).pid)
    assert working(processes[0].pid, lambda words: "RayTrainWorker" in " ".join(words))
    server.prefect("flow-run", "cancel", flow_run)
    server.wait(flow_run, "CANCELLED")
    wait_for(lambda: not [process for process in processes if not is_gone(process)])
    record = only_run(store)
    assert record.status == "interrupted" and process_of(record).is_gone
    states = [state["type"] for state in server.api(f"flow_run_states/?flow_run_id={flow_run}")]
    assert states[-3:] == ["RUNNING", "CANCELLING", "CANCELLED"], "a crash would be retried"
    assert RunStore(str(store)).adopt(record.run_id, pytest.fail) is not None, "its claim is free"


def test_a_killed_flow_leaves_no_job_and_its_retry_continues_until_it_is_cancelled(server, mini, tmp_path):
    """One job for all stages: it holds the slot of the accelerator, and no process of it outlives its flow run."""
    store = tmp_path / "store"
    runs = RunStore(str(store))
    run_config(str(store), build_run_config(mini, "mini"), last_stage="tokenize")
    mini["pretrain"]["tokens"] = ENDLESS
    with ray_cluster(cpus=2, token=TOKEN) as cluster:
        mini["execution"] |= {
            "submit": "run", "address": cluster.dashboard, "shared_filesystem": True, "python": sys.executable,
            "follow_seconds": 0.5,
        }  # fmt: skip
        flow_run = server.run("headrace/pipeline", config=mini, store=str(store), until="pretrain")
        wait_for(lambda: checkpoints(store))
        record = runs.get("latest")
        [job] = JobFolder(runs.folder, record.run_id).all()
        assert server.api(f"v2/concurrency_limits/{LIMIT}")["active_slots"] == 1
        server.process(flow_run).send_signal(signal.SIGKILL)
        server.wait_for_crash(flow_run)
        wait_for(lambda: cluster.job_status(job.submission_id) == "STOPPED")
        wait_for(lambda: runs.get(record.run_id).status == "interrupted")
        driver = runs.claims(record.run_id).owner(job.number)
        assert driver is not None
        wait_for(lambda: driver.process.is_gone)

        server.free_slots(LIMIT)
        step = last_step(store)
        server.prefect("flow-run", "retry", flow_run)
        wait_for(lambda: last_step(store) > step)
        server.prefect("flow-run", "cancel", flow_run)
        server.wait(flow_run, "CANCELLED")
        jobs = JobFolder(runs.folder, record.run_id).all()
        assert len(jobs) == 2
        wait_for(lambda: {cluster.job_status(one.submission_id) for one in jobs} == {"STOPPED"})
        assert runs.get(record.run_id).status == "interrupted"


def test_a_command_on_the_server_is_cancelled_there_and_declared_crashed_without_heartbeat(server, mini, tmp_path):
    """Two `headrace run`, which have no worker: one is killed, and one cancelled meanwhile."""
    shipped = yaml.safe_load((CHECKOUT / "infra/deployment/prefect-automations.yaml").read_text())["automations"][0]
    shipped["trigger"]["within"] = 20  # less than there is between two heartbeats, so only for the one that is killed
    shipped["trigger"]["match"]["prefect.resource.name"] = "headrace killed"
    automation = server.api("automations/", shipped | {"name": "quick"})["id"]
    mini["pretrain"]["tokens"] = ENDLESS
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(mini))
    commands = {
        name: server.headrace(
            "run", f"{tmp_path}/mini.yaml", "--set", f"name={name}", "--store", f"{tmp_path}/{name}", log=name
        )
        for name in ("killed", "cancelled")
    }
    try:
        wait_for(lambda: all((tmp_path / name / "ingest").exists() for name in commands))
        rows = {row["name"]: row["id"] for row in server.api("flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC"})}
        killed, cancelled = rows["headrace killed"], rows["headrace cancelled"]
        commands["killed"].kill()
        server.prefect("flow-run", "cancel", cancelled)
        assert commands["cancelled"].wait(WAIT_SECONDS) == 130
        assert "cancelled on the Prefect server; finished work is kept" in (server.folder / "cancelled.log").read_text()
        server.wait(cancelled, "CANCELLED")
        assert only_run(tmp_path / "cancelled").status == "interrupted"
        server.wait(killed, "CRASHED")
        assert "No heartbeat" in server.flow_run(killed)["state"]["message"]
    finally:
        stop(*commands.values())
        server.prefect("automation", "delete", "--id", automation)
