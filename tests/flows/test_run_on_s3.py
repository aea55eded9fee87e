"""A whole run in a store on S3 that fails now and then: killed in training, it resumes with the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from infra.store.filesystem import Folder
from infra.store.runs import RunStore
from tests.flows.mini import digests, mini_config, mini_values, run_config, write_corpus
from tests.infra.store.faulty_s3 import faulty_s3
from tests.infra.store.s3_server import BUCKET, forget_clients, s3_server

pytestmark = pytest.mark.slow
STORE = f"s3://{BUCKET}/store"


def trained_steps(store: str) -> list[str]:
    """Markers of the complete checkpoints of a run's training."""
    return [file.path for file in Folder(store).files("pretrain") if file.path.endswith("/complete.json")]


def test_a_run_on_a_failing_s3_is_killed_and_resumes(tmp_path, monkeypatch):
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    corpus = write_corpus(tmp_path / "texts")
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(mini_values(corpus)))
    command = [str(Path(sys.executable).with_name("headrace")), "run", "mini.yaml"]
    with s3_server() as environment, faulty_s3(environment["AWS_ENDPOINT_URL"]) as proxy:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        forget_clients()
        shared = {
            **os.environ, "AWS_ENDPOINT_URL": proxy.url, "HEADRACE_HOME": STORE, "HOME": str(tmp_path),
            "PREFECT_HOME": str(tmp_path / "prefect"),
        }  # fmt: skip
        proxy.every = 20
        with subprocess.Popen(
            command, cwd=tmp_path, env=shared, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as run:
            while not trained_steps(STORE):
                assert run.poll() is None, run.stdout.read().decode()
                time.sleep(0.05)
            run.send_signal(signal.SIGKILL)
        [killed] = RunStore(STORE).all()
        done = subprocess.run(command, cwd=tmp_path, env=shared, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        [record] = RunStore(STORE).all()
        assert (record.run_id, record.status) == (killed.run_id, "finished")
        assert "continues run" in done.stdout and "follows in" in done.stderr
        verified = subprocess.run([command[0], "verify"], env=shared, capture_output=True, text=True, check=False)
        assert verified.returncode == 0, verified.stdout
        on_s3 = digests(STORE, record.run_id)
    forget_clients()
    session, _ = run_config(f"{tmp_path}/local", mini_config(corpus))
    local = digests(f"{tmp_path}/local", session.run_id)
    assert {name: digest for name, digest in on_s3.items() if name != "benchmark"} == {
        name: digest for name, digest in local.items() if name != "benchmark"
    }
