"""A whole run in a store on S3 that fails now and then: killed in training, it resumes with the same bytes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows.commands.verify import verify_store
from flows.config.run_config import apply_overrides
from flows.runs.request import RunRequest
from flows.runs.session import RunSession
from infra.store.filesystem import Folder
from infra.store.runs import RunStore
from tests.flows.mini import digests, mini_config, mini_values, run_config, write_corpus
from tests.flows.runs.test_ownership import process, wake
from tests.infra.store.faulty_s3 import FaultyS3, faulty_s3
from tests.infra.store.s3_server import BUCKET, forget_clients, s3_server
from tests.processes import WAIT_SECONDS

pytestmark = pytest.mark.slow
STORE = f"s3://{BUCKET}/store"


def trained_steps(store: str) -> list[str]:
    """Markers of the complete checkpoints of a run's training."""
    return [file.path for file in Folder(store).files("pretrain") if file.path.endswith("/complete.json")]


@pytest.fixture
def proxy(monkeypatch) -> Iterator[FaultyS3]:
    """A failing server; this process uses it without faults, and processes with `environment(proxy)` with them."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with s3_server() as server, faulty_s3(server["AWS_ENDPOINT_URL"]) as running:
        for name, value in server.items():
            monkeypatch.setenv(name, value)
        forget_clients()
        yield running


def test_of_two_processes_at_once_on_s3_one_continues_the_run(tmp_path, proxy, monkeypatch):
    corpus = write_corpus(tmp_path / "texts")
    left = RunSession.begin(RunRequest(mini_config(corpus), STORE, last_stage="pretrain"))
    left.close("interrupted")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    proxy.every = 10
    with process("begin", STORE, corpus) as one, process("begin", STORE, corpus) as other:
        for started in (one, other):
            assert started.stdout.readline() == "ready\n"
        for started in (one, other):
            wake(started)
        begun = [json.loads(started.stdout.readline()) for started in (one, other)]
    assert sorted(run_id == left.run_id for run_id, *_ in begun) == [False, True]
    assert len({run_id for run_id, *_ in begun}) == 2


def test_a_run_on_a_failing_s3_is_killed_and_resumes(tmp_path, proxy):
    corpus = write_corpus(tmp_path / "texts")
    large = "ingest.partition_bytes=200000"  # few requests
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(apply_overrides(mini_values(corpus), [large])))
    command = [str(Path(sys.executable).with_name("headrace")), "run", "mini.yaml"]
    shared = {
        **os.environ, "AWS_ENDPOINT_URL": proxy.url, "HEADRACE_HOME": STORE, "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"), "PREFECT_HOME": str(tmp_path / "prefect"),
    }  # fmt: skip
    proxy.every = 40
    running: list[subprocess.Popen[bytes]] = []

    def kill(answer: bytes) -> bytes:
        running[0].send_signal(signal.SIGKILL)
        return answer

    proxy.fail("PUT", r"work/train/step-\d+/complete\.json", kill, times=1)
    with (tmp_path / "killed.log").open("wb") as log:
        running.append(subprocess.Popen(command, cwd=tmp_path, env=shared, stdout=log, stderr=log))
    try:
        status = running[0].wait(WAIT_SECONDS)
    finally:
        running[0].kill()
    assert status == -signal.SIGKILL, (tmp_path / "killed.log").read_text()
    assert trained_steps(STORE), "after its first checkpoint"
    [killed] = RunStore(STORE).all()
    done = subprocess.run(command, cwd=tmp_path, env=shared, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [record] = RunStore(STORE).all()
    assert (record.run_id, record.status) == (killed.run_id, "finished")
    assert "continues run" in done.stdout and "follows in" in done.stderr
    assert verify_store(STORE, None)
    session, _ = run_config(f"{tmp_path}/local", mini_config(corpus, large))
    on_s3, local = digests(STORE, record.run_id), digests(f"{tmp_path}/local", session.run_id)
    del on_s3["benchmark"], local["benchmark"]
    assert on_s3 == local
