"""Recovery on worker processes of Ray Train: each has the whole network, and the gradients are averaged."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from infra.progress import RelayedListener, SilentListener, relayed
from infra.workers.payload import ORDER, load_payload, save_payload
from infra.workers.ray_training import Worker, fit, ray_trainer
from modeling.training.data_parallel import WorkerRank
from stages.compress.pass_context import THIS_PROCESS, PassContext

Training = Callable[[PassContext], None]


def train_on_workers(train: Training, count: int, context: PassContext) -> None:
    """Run `train` on each of `count` workers; returns when all are done. Workers that die are started again.

    Args:
        train: given a context with the worker's place, goes on from what was saved in `context.work`. Networks and all
            else that it holds travel by cloudpickle and come to lie on the worker's device.
        count: of the workers.
        context: this process's; `workers` says what each gets.

    Raises:
        EnvironmentProblem: where the cluster has no room.
        HeadraceError: what a worker said the user can mend.
        ray.train.TrainingFailedError: where workers died more often than `max_failures`.
    """
    save_payload(context.work, train)
    given = replace(context, workers=THIS_PROCESS, listener=SilentListener())
    workers = replace(context.workers, most=count, fewest=count)
    trainer = ray_trainer(partial(_train_on_worker, given), workers, context.work)
    with relayed(context.work, context.listener):
        fit(trainer)
    context.work.remove(ORDER)


def _train_on_worker(context: PassContext, worker: Worker) -> None:
    listener = RelayedListener(context.work) if worker.rank == 0 else SilentListener()
    train: Training = load_payload(context.work, worker.device)
    train(replace(context, place=WorkerRank(worker.rank, worker.count), listener=listener))
