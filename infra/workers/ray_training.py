"""Training on worker processes of Ray Train, for any stage; dead workers are restarted.

- `TrainingWorkers`: number and resources of a stage's workers; `Worker`: rank and device inside one of them
- `check_room`: refuses more workers than fit on the cluster; `ray_trainer`, `fit`: start them and wait for the end

The training function must save its own progress: a restarted worker calls it again.

The process that controls the workers imports this module and Ray Train, and neither torch nor what is trained: that
would take seconds before the first worker starts.
"""

import logging
import os
import pickle
import uuid
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any

from data_schemas.errors import HeadraceError, JobLostError
from infra.control_groups import cpu_count
from infra.named_errors import named_errors
from infra.store.filesystem import Folder
from infra.workers.capacity import room_problem
from infra.workers.idle_workers import worker_environment
from infra.workers.nodes import check_this_node, versions_for_nodes
from infra.workers.process_group import process_group
from infra.workers.ray_session import WITHOUT_RAY, close_ray, cluster_has_gpus, ensure_ray

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0


@dataclass(frozen=True)
class TrainingWorkers:
    """Number and resources of a stage's workers."""

    stage: str
    """Name for error messages, whose config fields are `<stage>.workers` and `<stage>.cpus_per_worker`."""
    max_workers: int = 1
    min_workers: int = 1
    """Training continues with as few as this while the cluster has no room for more."""
    cpus_per_worker: float = 1.0
    """Processors that Ray reserves for each worker on a cluster without GPUs; with GPUs each worker has one."""
    max_failures: int = 3
    """Restarts of dead workers before training fails."""
    counts: tuple[int, ...] = ()
    """Numbers of workers that can train together; by default all from `min_workers` to `max_workers`."""

    def count_for(self, possible: int) -> int:
        """Workers to train with where `possible` have room, the others idle; 0: wait for more room."""
        counts = self.counts or range(self.min_workers, self.max_workers + 1)
        return max((count for count in counts if count <= possible), default=0)


@dataclass(frozen=True)
class Worker:
    """One of the processes that train together, connected by torch.distributed."""

    rank: int
    count: int
    device: "torch.device"


def check_room(workers: TrainingWorkers) -> None:
    """Refuse more workers than fit on the cluster; connects to Ray or starts it.

    Raises:
        EnvironmentProblem: if they do not fit, with the number that does, or if Ray cannot be reached or started.
    """
    ensure_ray()
    import ray

    resources = ray.cluster_resources()
    gpus = resources.get("GPU", 0.0) if workers_have_gpus() else 0.0
    problem = room_problem(workers.stage, workers.min_workers, workers.cpus_per_worker, gpus, resources.get("CPU", 0.0))
    if problem:
        raise problem


def workers_have_gpus() -> bool:
    """Whether workers compute on GPUs: if the cluster that this process is connected to has any.

    If Ray was started on this machine, torch has to be able to use them too.
    """
    if not cluster_has_gpus():
        return False
    if "RAY_ADDRESS" in os.environ:
        return True
    import torch

    return torch.cuda.is_available()


def ray_trainer(train: Callable[[Worker], None], workers: TrainingWorkers, work: Folder) -> Any:
    """Trainer for `fit`; connects to Ray or starts it.

    Args:
        train: function that every worker calls, with gloo, or NCCL on GPUs; serialized with cloudpickle and sent
            through Ray's object store.
        workers: number and resources of the workers.
        work: folder for Ray Train's own records.

    Raises:
        EnvironmentProblem: if `min_workers` do not fit on the cluster, or Ray cannot be reached or started.
    """
    check_room(workers)
    from pyarrow.fs import FSSpecHandler, PyFileSystem
    from ray import cloudpickle
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    gpus, is_cluster = workers_have_gpus(), "RAY_ADDRESS" in os.environ
    resources = {"GPU": 1.0} if gpus else {"CPU": workers.cpus_per_worker}
    least, most = workers.min_workers, workers.max_workers
    return _trainer_class(workers)(
        _run_worker,
        # Pickled: the controller reads these settings too.
        train_loop_config={
            "train": cloudpickle.dumps(train),
            "location": work.url,
            "versions": versions_for_nodes(),
        },
        scaling_config=ScalingConfig(
            num_workers=most if least == most else (least, most), use_gpu=gpus, resources_per_worker=resources
        ),
        backend_config=process_group("nccl" if gpus else "gloo"),
        run_config=RunConfig(
            # Stages resume by themselves. Ray would not start a run again whose name it knows as finished.
            name=f"ray-{uuid.uuid4().hex[:8]}",
            storage_path=work.full(),
            storage_filesystem=None if work.is_local else PyFileSystem(FSSpecHandler(work.filesystem)),
            failure_config=FailureConfig(max_failures=workers.max_failures),
            worker_runtime_env={} if gpus or is_cluster else worker_environment(workers.cpus_per_worker),
        ),
    )


def fit(trainer: Any) -> None:
    """Run the workers until all have finished.

    Raises:
        HeadraceError: an error of a worker that the user can fix.
        JobLostError: if Ray itself ended.
        ray.train.TrainingFailedError: if workers died more often than `max_failures`.
    """
    import ray.train

    ended: Future[None] = Future()
    # In a thread: what a signal's handler raises (a timeout, Ctrl-C) does not leave Ray's waiting.
    Thread(target=_fit, args=(trainer, ended), daemon=True).start()
    try:
        while not wait([ended], POLL_SECONDS).done:
            pass
        ended.result()
    except ray.train.TrainingFailedError as error:
        if problem := _user_error(error):
            raise problem from None
        for text in {str(failure) for failure in getattr(error, "worker_failures", {}).values()}:
            logger.error("a worker failed: %s", text)  # Ray's own message has its first and last 500 characters
        raise error from None
    except (ray.exceptions.RayActorError, ray.exceptions.OwnerDiedError, ray.exceptions.RaySystemError) as error:
        close_ray()
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = next((line for line in lines if "because" in line), lines[-1]).strip().rstrip(".")
        raise JobLostError(
            f"a process of Ray that controls the training ended ({reason:.300}); the system ends processes when memory "
            f"runs out: give it more, or train in one process, which takes less: {WITHOUT_RAY}; the same command "
            "continues at the last checkpoint"
        ) from error
    except BaseException:  # controller and workers end with this connection
        close_ray()
        raise


def _fit(trainer: Any, ended: Future[None]) -> None:
    try:
        trainer.fit()
        ended.set_result(None)
    except BaseException as error:
        ended.set_exception(error)


def _run_worker(train_loop_config: dict[str, Any]) -> None:
    import torch
    from ray.train import get_context
    from ray.train.torch import get_device
    from ray.train.torch.config import TorchConfigContextManager

    check_this_node(train_loop_config["versions"])
    train: Callable[[Worker], None] = pickle.loads(train_loop_config["train"])
    context = get_context()
    torch.set_num_threads(max(1, cpu_count() // context.get_local_world_size()))
    torch.set_float32_matmul_precision("highest")  # vendors' images set a variable that turns TF32 on
    with named_errors(train_loop_config["location"]), TorchConfigContextManager():  # takes this worker's GPU
        train(Worker(context.get_world_rank(), context.get_world_size(), get_device()))


def _trainer_class(workers: TrainingWorkers) -> Any:
    """Ray's trainer that starts only numbers of workers that can train, and none after errors that a user must fix.

    Ray Train registers what it needs with an actor that shares out a cluster among trainings and data pipelines and
    asks its autoscaler for more. That actor starts, and imports Ray's data library, before the first worker does. On a
    Ray of this machine a fixed number of workers does without it.

    It has no placement group cleaner, a detached actor that frees the resources of a dead controller and then fails to
    end: a cancelled job would leave one process on the head for good. Ray frees what a driver has when it disconnects,
    which `fit` sees to. Without a dashboard, the cleaner also fills the log with its failures and takes 12 s to stop.
    """
    from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
    from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, FixedScalingPolicy
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    class ScalingPolicy(ElasticScalingPolicy):  # type: ignore[misc]
        def _count_possible_workers(self, reserved_resources: Any) -> int:
            return workers.count_for(super()._count_possible_workers(reserved_resources))

    class UnregisteredPolicy(FixedScalingPolicy):  # type: ignore[misc]
        def after_controller_start(self, train_run_context: Any) -> None:
            pass

        def _maybe_send_resource_request(self) -> None:
            pass

    class FailurePolicy(DefaultFailurePolicy):  # type: ignore[misc]
        def make_decision(self, training_failed_error: BaseException) -> Any:
            if _user_error(training_failed_error):
                return FailureDecision.RAISE
            return super().make_decision(training_failed_error)

    class Trainer(DataParallelTrainer):  # type: ignore[misc]
        def _initialize_and_run_controller(self, **settings: Any) -> Any:
            settings["failure_policy"] = FailurePolicy(self.run_config.failure_config)
            if self.scaling_config.elasticity_enabled:
                settings["scaling_policy"] = ScalingPolicy(self.scaling_config)
            elif "RAY_ADDRESS" not in os.environ:
                settings["scaling_policy"] = UnregisteredPolicy(self.scaling_config)
            return super()._initialize_and_run_controller(**settings)

        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]

    return Trainer


def _user_error(error: BaseException) -> HeadraceError | None:
    """The user's error that a worker raised, without the trainer's wrapping."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause = failure
        while cause is not None:
            if isinstance(cause, HeadraceError):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    return None
