"""The command a user types, in processes of its own, with Prefect and, where marked, Ray and kills."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from infra.store.runs import RunStore
from stages.registry import stages_of
from tests.flows.mini import digests, mini_values, write_corpus
from tests.processes import WAIT_SECONDS, descendants, living, wait_for, working

HEADRACE = str(Path(sys.executable).with_name("headrace"))
NAMES = [stage.name for stage in stages_of({})]


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory):
    """One Prefect database for the module: making it costs several seconds."""
    return str(tmp_path_factory.mktemp("prefect"))


@pytest.fixture
def workspace(tmp_path, prefect_home):
    """A folder with a corpus and a config; the environment for its commands."""
    values = mini_values(write_corpus(tmp_path / "texts"))
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(values))
    environment = {**os.environ, "PREFECT_HOME": prefect_home, "HEADRACE_HOME": str(tmp_path / "store")}
    environment.pop("PREFECT_API_URL", None)
    return tmp_path, environment


ON_RAY = (
    "--set", "pretrain.workers=2", "--set", "pretrain.micro_batch=1", "--set", "pretrain.tokens=131072",
    "--set", "pretrain.checkpoint_every_steps=16",
)  # fmt: skip
"""Seconds of training, on a fast machine too: workers notice a request to stop within one."""


@pytest.fixture(scope="module")
def undisturbed_log(tmp_path_factory, prefect_home):
    """The training log of a run on two Ray workers that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "mini.yaml").write_text(yaml.safe_dump(mini_values(write_corpus(folder / "texts"))))
    environment = {**os.environ, "PREFECT_HOME": prefect_home, "HEADRACE_HOME": str(folder / "store")}
    environment.pop("PREFECT_API_URL", None)
    headrace((folder, environment), "run", "mini.yaml", *ON_RAY, "--until", "pretrain")
    return training_log(folder / "store")


def headrace(workspace, *arguments: str, expect: int = 0) -> tuple[str, dict]:
    folder, environment = workspace
    command = [HEADRACE, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS)
    assert done.returncode == expect, done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-1] if "--json" in arguments else "{}"
    return done.stdout + done.stderr, json.loads(last)


def imported(output: str) -> set[str]:
    """Packages that a command imported, from its output with PYTHONPROFILEIMPORTTIME."""
    lines = (line for line in output.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.slow
def test_a_users_first_session(workspace):
    folder, environment = workspace
    _, planned = headrace(workspace, "plan", "mini.yaml", "--json")
    assert [(row["stage"], row["action"]) for row in planned["stages"]] == [(name, "run") for name in NAMES]
    output, done = headrace(workspace, "run", "mini.yaml", "--json")
    assert [row["action"] for row in done["stages"]] == ["run"] * len(NAMES)
    assert "bits per byte" in output
    assert Path(done["report"]).read_text().startswith("<!doctype html>")
    profiled = folder, {**environment, "PYTHONPROFILEIMPORTTIME": "1"}
    output, again = headrace(profiled, "run", "mini.yaml", "--json")
    assert [row["action"] for row in again["stages"]] == ["reuse"] * len(NAMES)
    assert not {"torch", "ray", "matplotlib", "tokenizers", "transformers"} & imported(output), (
        "what a cached run needs not"
    )
    override = ("--set", "compress.passes.0.sparsity=0.8")
    _, rerun = headrace(workspace, "rerun", "compress", "--run", done["run_id"], *override, "--json")
    assert [row["stage"] for row in rerun["stages"] if row["action"] == "run"] == ["compress", "benchmark"]
    assert headrace(workspace, "runs", "--json")[1]["runs"][0]["run_id"] == rerun["run_id"]
    assert headrace(workspace, "show", "latest", "--json")[1]["metrics"]["compress"]["passes"][1]["name"] == "prune"
    assert headrace(workspace, "lineage", "latest:benchmark", "--json")[1]["lineage"]
    assert "0 damaged" in headrace(workspace, "verify")[0]
    assert headrace(workspace, "report", "latest")[0].strip().endswith("report.html")
    assert headrace(workspace, "generate", "latest", "The value", "--tokens", "4")[0].startswith("The value")
    assert {path.name for path in folder.iterdir()} == {"texts", "mini.yaml", "store"}


def test_a_user_error_is_one_sentence_and_exit_status_2(workspace):
    output, _ = headrace(workspace, "run", "none.yaml", expect=2)
    assert output.startswith("error: cannot read the run config none.yaml")
    assert "Traceback" not in output
    output, _ = headrace(workspace, "plan", "mini.yaml", "--set", "pretrain.workers=-1", expect=2)
    assert "pretrain.workers: Input should be greater than or equal to 0, found -1" in output
    assert "no run 'x'" in headrace(workspace, "show", "x", expect=2)[0]
    assert "no stage 'train'" in headrace(workspace, "rerun", "train", expect=2)[0]
    for arguments in ((), ("clean", "--from", "clean"), ("--from", "clean", "--only")):
        assert "rerun needs STAGE" in headrace(workspace, "rerun", *arguments, expect=2)[0]
    assert "names no artifact" in headrace(workspace, "lineage", "nonsense", expect=2)[0]


@pytest.mark.slow
def test_a_user_error_is_found_before_anything_starts(workspace):
    folder, _ = workspace
    output, _ = headrace(workspace, "run", "mini.yaml", "--set", "pretrain.batch_tokens=500", expect=2)
    assert output.count("error:") == 1
    assert "use 256 or 512" in output, "the batch is refused with the sizes that fit"
    assert RunStore(str(folder / "store")).all() == [], "and before anything starts"


@pytest.mark.slow
@pytest.mark.parametrize(("variables", "expected"), [
    ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "PREFECT_API_URL=http://127.0.0.1:9/api cannot be used"),
    ({"PREFECT_API_URL": "http://[bad/api"}, "Prefect refuses its settings: "),
    ({"PREFECT_HOME": "mini.yaml"}, "mini.yaml is a file, but a folder is needed there"),
    ({"HEADRACE_HOME": "mini.yaml"}, "the store mini.yaml cannot be used: "),
    ({"HEADRACE_HOME": "/proc/store"}, "/proc/store: No such file or directory; use another store"),
])  # fmt: skip
def test_a_server_or_folder_that_cannot_be_used_is_one_sentence_before_anything_starts(workspace, variables, expected):
    folder, environment = workspace
    output, _ = headrace((folder, {**environment, **variables}), "run", "mini.yaml", expect=2)
    assert expected in output and output.count("error:") == 1 and "Traceback" not in output
    assert "ingest" not in output


@pytest.mark.slow
def test_a_read_only_store_is_one_sentence(workspace):
    folder, _ = workspace
    (folder / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder / "disk")]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a filesystem needs root")
    try:
        output, _ = headrace(workspace, "run", "mini.yaml", "--store", "disk/store", expect=2)
        assert "disk is read-only; mount it writable" in output and output.count("error:") == 1
        assert "Traceback" not in output and "ingest" not in output
        headrace(workspace, "plan", "mini.yaml", "--store", "disk/store")
    finally:
        subprocess.run(["umount", str(folder / "disk")], check=True)


@pytest.mark.slow
def test_proxies_are_not_used_for_the_temporary_server(workspace):
    """One that accepts connections and never answers, and one of a kind that httpx does not know."""
    folder, environment = workspace
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        proxies = {"HTTP_PROXY": proxy, "http_proxy": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": "socks://127.0.0.1:9"}
        for name in ("NO_PROXY", "no_proxy"):
            environment.pop(name, None)
        headrace((folder, {**environment, **proxies}), "run", "mini.yaml", "--until", "ingest")


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_is_continued_with_the_same_bytes(workspace, stop):
    folder, _ = workspace
    whole = str(folder / "whole")
    options = ["--until", "pretrain", "--set", "pretrain.tokens=131072"]  # seconds of training left to be stopped in
    headrace(workspace, "run", "mini.yaml", "--store", whole, *options)
    command = [HEADRACE, "run", "mini.yaml", *options]
    with started(workspace, *command, preexec_fn=restore_interrupts) as process:
        wait_for(lambda: checkpoints(folder), poll_seconds=0.02)
        process.send_signal(stop)
        status = process.wait(WAIT_SECONDS)
    assert status == (-signal.SIGKILL if stop == signal.SIGKILL else 130)
    assert "interrupted" in headrace(workspace, "runs")[0] or "killed" in headrace(workspace, "runs")[0]
    output, done = headrace(workspace, *command[1:], "--json")
    assert f"continues run {done['run_id']}" in output
    assert digests(str(folder / "store"), done["run_id"]) == digests(whole, RunStore(whole).get("latest").run_id)


@pytest.mark.slow
def test_a_killed_training_worker_resumes_with_the_same_losses(workspace, undisturbed_log):
    """Ray Train, two workers: one is killed after the first checkpoint."""
    folder, _ = workspace
    command = [HEADRACE, "run", "mini.yaml", *ON_RAY, "--until", "pretrain"]
    with started(workspace, *command) as process:
        wait_for(lambda: checkpoints(folder), poll_seconds=0.02)
        workers = working(process.pid, lambda words: "RayTrainWorker" in " ".join(words))
        assert len(workers) == 2
        workers[0].kill()
        assert process.wait(WAIT_SECONDS) == 0
    assert training_log(folder / "store") == undisturbed_log
    [manifest] = (folder / "store").glob("pretrain/*/*/manifest.json")
    assert len(json.loads(manifest.read_text())["metrics"]["starts"]) == 2, "there was a second start"


@pytest.mark.slow
def test_a_terminated_run_saves_and_resumes_in_another_layout(workspace, undisturbed_log):
    """Two Ray workers with a shard each; SIGTERM; on with matrices shared: the same losses up to rounding."""
    folder, _ = workspace
    options = [*ON_RAY, "--set", "pretrain.checkpoint_every_steps=1000", "--until", "pretrain"]
    command = [HEADRACE, "run", "mini.yaml", *options, "--set", "pretrain.layout.shard=2"]
    with started(workspace, *command) as process:
        wait_for(lambda: has_rows(folder), poll_seconds=0.02)
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 130
    [marker] = checkpoints(folder)
    assert 0 < json.loads(marker.read_text())["step"] < 256, "saved on request: no checkpoint was due"
    output, _ = headrace(workspace, "run", "mini.yaml", *options, "--set", "pretrain.layout.tensor=2")
    assert "continues run" in output
    rows = [
        [json.loads(line) for line in log.splitlines()] for log in (training_log(folder / "store"), undisturbed_log)
    ]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for resumed, expected in zip(*rows, strict=True):
        assert resumed["loss"] == pytest.approx(expected["loss"], rel=1e-3)


@pytest.mark.slow
def test_a_run_whose_every_process_is_killed_resumes_with_the_same_losses(workspace, undisturbed_log):
    """The driver, Ray's processes and the workers all at once, as when a machine loses power."""
    folder, _ = workspace
    command = [HEADRACE, "run", "mini.yaml", *ON_RAY, "--until", "pretrain"]
    with started(workspace, *command) as process:
        wait_for(lambda: checkpoints(folder), poll_seconds=0.02)
        kill_all(process)
    output, _ = headrace(workspace, *command[1:])
    assert "continues run" in output
    assert training_log(folder / "store") == undisturbed_log


@pytest.mark.slow
def test_two_runs_at_once_on_one_store_do_not_disturb_each_other(workspace):
    folder, _ = workspace
    command = [HEADRACE, "run", "mini.yaml", "--until", "tokenize"]
    with started(workspace, *command) as one, started(workspace, *command) as other:
        assert [process.wait(WAIT_SECONDS) for process in (one, other)] == [0, 0]
    store = str(folder / "store")
    runs = RunStore(store).all()
    assert len(runs) == 2
    assert digests(store, runs[0].run_id) == digests(store, runs[1].run_id)
    assert "0 damaged" in headrace(workspace, "verify")[0]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except (OSError, HTTPException):
        return False


@contextmanager
def started(workspace, *command: str, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A command beside the test; of what it has started nothing is left after the block."""
    folder, environment = workspace
    process = subprocess.Popen(command, cwd=folder, env=environment, **settings)
    try:
        yield process
    finally:
        kill_all(process)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and all processes below it, unless it has ended."""
    if process.poll() is None:  # else its number may be that of another process
        for running in [*descendants(process.pid), *living([process.pid])]:
            with suppress(psutil.NoSuchProcess):
                running.kill()
    process.wait()


def checkpoints(folder: Path) -> list[Path]:
    """Markers of complete checkpoints in the store of a workspace."""
    return list((folder / "store").glob("pretrain/*/*/work/train/*/complete.json"))


def has_rows(folder: Path) -> bool:
    """Whether training has logged a step; the file that says so may be replaced between two looks."""
    logs = (folder / "store").glob("pretrain/*/*/work/log/*.jsonl")
    with suppress(FileNotFoundError):
        return any('"row"' in log.read_text() for log in logs)
    return False


def restore_interrupts() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def training_log(store: Path) -> str:
    """The committed log; a run's second owner writes into a folder of its own below the artifact's."""
    [path] = store.glob("pretrain/**/training_log.jsonl")
    return path.read_text()
