import pytest

from data_schemas.errors import ConfigError, EnvironmentProblem
from infra.store.filesystem import Folder
from infra.workers.ray_session import close_ray
from infra.workers.ray_training import TrainingWorkers, Worker, check_room, fit, ray_trainer


def refuse(worker: Worker) -> None:
    raise ConfigError(f"worker {worker.rank} of {worker.count} on {worker.device.type} cannot")


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
