"""Processes that wait for training: they have imported torch, and Ray Train takes them."""

import importlib
import os
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from infra.store.filesystem import Folder
from infra.workers import idle_workers, preload, ray_session
from infra.workers.ray_session import close_ray, prestart_ray
from infra.workers.ray_training import TrainingWorkers, Worker, fit, ray_trainer
from tests.processes import descendants, wait_for


def note(folder: str, worker: Worker) -> None:
    Path(folder, str(os.getpid())).write_text(os.environ["OMP_NUM_THREADS"])


def have_torch() -> set[int]:
    """Processes below this one that have loaded torch's library."""
    found = set()
    for process in descendants(os.getpid()):
        try:
            if any("libtorch" in mapped.path for mapped in process.memory_maps()):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def test_a_process_imports_what_its_environment_names_and_survives_what_it_cannot(monkeypatch):
    monkeypatch.setenv(preload.MODULES, "absent_module,.wrong,colorsys")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    importlib.reload(preload)
    assert "colorsys" in sys.modules
    monkeypatch.delenv(preload.MODULES)
    importlib.reload(preload)


def test_a_worker_computes_with_the_threads_that_ray_would_give_it(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = {cpus: idle_workers.worker_environment(cpus)["env_vars"]["OMP_NUM_THREADS"] for cpus in (0.5, 1.0, 4.0)}
    assert threads == {0.5: "1", 1.0: "1", 4.0: "4"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert idle_workers.worker_environment(1.0)["env_vars"]["OMP_NUM_THREADS"] == "3"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="with GPUs no process waits")
def test_training_takes_a_process_that_waits_for_it(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_session, "PRESTART_BYTES", 0)
    monkeypatch.setattr(idle_workers, "RAY_BYTES", -(1 << 60))
    folder = tmp_path / "pids"
    folder.mkdir()
    try:
        prestart_ray(1, 1.0)
        wait_for(have_torch)
        waiting = have_torch()
        fit(ray_trainer(partial(note, str(folder)), TrainingWorkers("compress"), Folder(str(tmp_path))))
        assert {int(path.name) for path in folder.iterdir()} <= waiting
    finally:
        close_ray()
