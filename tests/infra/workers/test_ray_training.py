import errno
import os
import pickle
import signal
import subprocess
import sys
import time
import uuid
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from torch.distributed.checkpoint.api import CheckpointException

from data_schemas.errors import ConfigError, EnvironmentProblem, JobLostError
from infra.control_groups import cpu_count
from infra.store.filesystem import Folder
from infra.workers import ray_training
from infra.workers.ray_session import close_ray
from infra.workers.ray_training import TrainingWorkers, Worker, check_room, fit, ray_trainer
from tests.processes import living


def fill(folder: str, worker: Worker) -> None:
    Path(folder, uuid.uuid4().hex).touch()
    raise CheckpointException("full", {0: (OSError(errno.ENOSPC, "No space left on device"), None)})  # type: ignore


def sleep(folder: str, worker: Worker) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(300)


def refuse(worker: Worker) -> None:
    raise ConfigError(f"worker {worker.rank} of {worker.count} on {worker.device.type} cannot")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((), [0, 0, 2, 3, 4, 4]),
        ((2, 4), [0, 0, 2, 2, 4, 4]),
        ((3,), [0, 0, 0, 3, 3, 3]),
        ((2, 3, 4), [0, 0, 2, 3, 4, 4]),
    ],
)
def test_workers_that_have_room_but_no_plan_idle_or_wait(counts, expected):
    workers = TrainingWorkers("pretrain", 4, 2, counts=counts)
    assert [workers.count_for(possible) for possible in range(6)] == expected


def count(folder: str, worker: Worker) -> None:
    Path(folder, f"{worker.rank} of {worker.count}").touch()


def test_a_ray_that_ends_is_one_sentence_and_is_tried_again(monkeypatch):
    """As when the kernel, for want of memory, kills the raylet or the controller."""
    import ray

    def lost() -> None:
        raise ray.exceptions.RayActorError(error_msg="The actor ended.\nIt is dead because its owner has died.\nip: 1")

    closed: list[bool] = []
    monkeypatch.setattr(ray_training, "close_ray", lambda: closed.append(True))
    with pytest.raises(JobLostError, match=r"ended \(It is dead because its owner has died\); .*memory .* --set "):
        fit(SimpleNamespace(fit=lost))
    assert closed


READ_LIKE_THE_CONTROLLER = """
import pickle, ray, sys
elastic, fixed = map(pickle.loads, pickle.load(sys.stdin.buffer))
assert type(elastic["scaling_policy"]).__name__ == "ScalingPolicy"
for settings in (elastic, fixed):
    assert settings["train_run_context"].backend_config.backend_cls().share_cuda_visible_devices
policy = fixed["scaling_policy"]
policy.after_controller_start(fixed["train_run_context"])
assert policy.make_decision_for_non_running_worker_group().num_workers == 3
policy.before_controller_abort()
assert not ray.is_initialized(), "it asked an actor for resources"
slow = [name for name in ("torch", "modeling", "stages") if name in sys.modules]
assert not slow, f"before the first worker starts, the controller imports {slow}"
"""


def test_the_controller_imports_neither_torch_nor_what_is_trained_and_starts_no_other_actor(tmp_path, monkeypatch):
    """Each start of workers would wait for that."""
    trainers = pytest.importorskip("ray.train.v2.api.data_parallel_trainer")
    from ray import cloudpickle

    from stages.pretrain.trainer import train_in_process

    sent: list[bytes] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_training, "check_room", lambda workers: None)
    monkeypatch.setattr(ray_training, "workers_have_gpus", lambda: False)
    monkeypatch.setattr(trainers, "ObjectRefWrapper", lambda function: None)  # it stays in Ray's object store
    monkeypatch.setattr(
        trainers.DataParallelTrainer,
        "_initialize_and_run_controller",
        lambda _, **settings: (sent.append(cloudpickle.dumps(settings)), SimpleNamespace(error=None))[1],
    )
    for workers in (TrainingWorkers("pretrain", 4, 2), TrainingWorkers("pretrain", 3, 3)):
        ray_trainer(partial(train_in_process), workers, Folder(str(tmp_path))).fit()
    done = subprocess.run(
        [sys.executable, "-c", READ_LIKE_THE_CONTROLLER], input=pickle.dumps(sent), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.slow
def test_ray_starts_a_number_of_workers_that_can_train(tmp_path):
    """Room for three: two train."""
    folder = tmp_path / "workers"
    folder.mkdir()
    workers = TrainingWorkers("pretrain", 8, 1, cpus_per_worker=max(2, cpu_count()) / 3 - 0.01, counts=(1, 2, 4, 8))
    try:
        fit(ray_trainer(partial(count, str(folder)), workers, Folder(str(tmp_path))))
    finally:
        close_ray()
    assert sorted(path.name for path in folder.iterdir()) == ["0 of 2", "1 of 2"]


@pytest.mark.slow
def test_too_many_workers_are_refused_and_what_a_worker_says_reaches_the_user(tmp_path):
    try:
        with pytest.raises(EnvironmentProblem, match=r"compress.workers is 999 with 1 \w+ each, .* or fewer"):
            check_room(TrainingWorkers("compress", 999, 999))
        trainer = ray_trainer(refuse, TrainingWorkers("compress", max_failures=0), Folder(str(tmp_path)))
        with pytest.raises(ConfigError, match=r"^worker 0 of 1 on \w+ cannot$"):
            fit(trainer)
    finally:
        close_ray()


@pytest.mark.slow
def test_a_full_disk_on_a_worker_is_not_tried_again(tmp_path):
    folder = tmp_path / "starts"
    folder.mkdir()
    workers = TrainingWorkers("compress", max_failures=2)
    try:
        with pytest.raises(EnvironmentProblem, match="no space left on the filesystem"):
            fit(ray_trainer(partial(fill, str(folder)), workers, Folder(str(tmp_path))))
        assert len(list(folder.iterdir())) == 1, "the workers started once"
    finally:
        close_ray()


@pytest.mark.slow
def test_a_timeout_ends_the_workers(tmp_path):
    def interrupt(*_: object) -> None:
        if list(folder.iterdir()):
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise TimeoutError("of the stage")

    folder = tmp_path / "pids"
    folder.mkdir()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        trainer = ray_trainer(partial(sleep, str(folder)), TrainingWorkers("compress"), Folder(str(tmp_path)))
        signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
        with pytest.raises(TimeoutError, match="of the stage"):
            fit(trainer)
        pids = [int(path.name) for path in folder.iterdir()]
        assert pids and not psutil.wait_procs(living(pids), timeout=60)[1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        close_ray()


def test_errors_of_workers_are_logged_whole(caplog):
    """Ray shows the first and the last 500 characters."""
    train_errors = pytest.importorskip("ray.train")
    long = "\n".join(f"line {number} of the traceback" for number in range(100))

    class Trainer:
        def fit(self) -> None:
            raise train_errors.WorkerGroupError("cut", {0: RuntimeError(long), 1: RuntimeError(long)})

    with pytest.raises(train_errors.TrainingFailedError, match="cut"):
        fit(Trainer())
    assert [record.message for record in caplog.records] == [f"a worker failed: {long}"]
