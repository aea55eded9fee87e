"""Training on worker processes of Ray Train, for any stage; workers that die are started again.

- `TrainingWorkers`: how many a stage asks for; `Worker`: one of them, as the function that trains is told
- `check_room`: refuses more than the cluster can hold; `ray_trainer`: what starts them; `fit`: runs them to the end

What is trained must keep its own progress: workers that start again begin their function anew.
"""

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from data_schemas.errors import EnvironmentProblem, HeadraceError
from infra.store.filesystem import Folder
from infra.workers.ray_session import cpu_count, ensure_ray


@dataclass(frozen=True)
class TrainingWorkers:
    """What a stage asks of Ray Train."""

    stage: str
    """Its name, for messages: the fields are `<stage>.workers` and `<stage>.cpus_per_worker`."""
    most: int = 1
    fewest: int = 1
    """Training goes on with as few while the cluster has no more."""
    cpus_each: float = 1.0
    """Processors that Ray sets aside for each worker where there are no GPUs; else each has one GPU."""
    max_failures: int = 3
    """Times that dead workers are started again before training fails."""


@dataclass(frozen=True)
class Worker:
    """One of the processes that train together; torch.distributed joins them."""

    rank: int
    count: int
    device: torch.device


def check_room(workers: TrainingWorkers) -> None:
    """Refuse more workers than the cluster has room for; Ray is joined or started.

    Raises:
        EnvironmentProblem: with the number that it has room for, or where there is no Ray.
    """
    ensure_ray()
    import ray

    resource = "GPU" if torch.cuda.is_available() else "CPU"
    each = 1.0 if resource == "GPU" else workers.cpus_each
    there, fewest = ray.cluster_resources().get(resource, 0.0), workers.fewest
    if fewest * each > there:
        also = f", or {workers.stage}.cpus_per_worker {there / fewest:.2g}" if resource == "CPU" else ""
        raise EnvironmentProblem(
            f"{workers.stage}.workers is {fewest} with {each:g} {resource} each, and the cluster has {there:g}; "
            f"use {int(there / each)} workers or fewer{also}"
        )


def ray_trainer(train: Callable[[Worker], None], workers: TrainingWorkers, work: Folder) -> Any:
    """A trainer for `fit`; Ray is joined or started.

    Args:
        train: runs on every worker, over gloo, or NCCL on GPUs; travels by cloudpickle, through Ray's object store.
        workers: how many, and what each gets.
        work: where Ray Train keeps its own records.

    Raises:
        EnvironmentProblem: where the cluster has no room for the fewest workers, or there is no Ray.
    """
    check_room(workers)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    gpus = torch.cuda.is_available()
    resources = {"GPU": 1.0} if gpus else {"CPU": workers.cpus_each}
    most, fewest = workers.most, workers.fewest
    return _trainer_class()(
        _run_worker,
        train_loop_config={"train": train},
        scaling_config=ScalingConfig(
            num_workers=most if most == fewest else (fewest, most), use_gpu=gpus, resources_per_worker=resources
        ),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        run_config=RunConfig(
            # Progress is the stage's own. Ray would not start a run again whose name it knows as finished.
            name=f"ray-{uuid.uuid4().hex[:8]}",
            storage_path=work.full() if work.is_local else work.url,
            failure_config=FailureConfig(max_failures=workers.max_failures),
        ),
    )


def fit(trainer: Any) -> None:
    """Run the workers until all are done.

    Raises:
        HeadraceError: what a worker said the user can mend.
        ray.train.TrainingFailedError: where workers died more often than `max_failures`.
    """
    import ray.train

    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _user_error(error) or error from None


def _run_worker(train_loop_config: dict[str, Any]) -> None:
    from ray.train import get_context
    from ray.train.torch import get_device

    train: Callable[[Worker], None] = train_loop_config["train"]
    context = get_context()
    torch.set_num_threads(max(1, cpu_count() // context.get_local_world_size()))
    train(Worker(context.get_world_rank(), context.get_world_size(), get_device()))


def _trainer_class() -> Any:
    """`TorchTrainer`; on a Ray that this process started, without the placement group cleaner.

    The cleaner frees resources after a dead controller, which on one machine dies with its driver. It asks the
    dashboard every second, which is off here, fills the log with its failures and has a 12 s stop time-out.
    """
    from ray.train.torch import TorchTrainer

    if "RAY_ADDRESS" in os.environ:
        return TorchTrainer

    class LocalTorchTrainer(TorchTrainer):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [one for one in callbacks if type(one).__name__ != "PlacementGroupCleanerCallback"]

    return LocalTorchTrainer


def _user_error(error: BaseException) -> HeadraceError | None:
    """What a worker raised for the user, out of the trainer's wrapping."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause = failure
        while cause is not None:
            if isinstance(cause, HeadraceError):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    return None
