"""Recovery training after a pass: on the text, on the teacher's predictions, or on both.

- `recover`: trains a network in this process or on Ray Train workers; a killed recovery resumes from its last save
- `recovery_loss`: the loss of a recovery's settings

With any number of workers a recovery reads the same rows and gives the same weights, up to rounding.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from infra.progress import RelayedListener, SilentListener, relayed
from infra.workers.payload import PAYLOAD, load_payload, load_tensors, save_payload
from infra.workers.ray_training import Worker, fit, ray_trainer
from modeling.distillation.loss import distillation_loss
from modeling.loss.cross_entropy import next_token_loss
from modeling.training.data_parallel import (
    MICRO_BATCH_ROWS,
    WorkerRank,
    max_workers,
    rows_are_independent,
    worker_gradients,
)
from modeling.training.gradients import LossFunction
from modeling.training.optimizer import build_optimizer
from modeling.training.schedule import learning_rate_at
from modeling.training.step import training_step
from modeling.transformer import Transformer
from stages.compress.pass_context import THIS_PROCESS, PassContext
from stages.compress.recovery_config import Recovery

SAVE_EVERY_STEPS = 100
BETAS, MUON_MOMENTUM = (0.9, 0.95), 0.95
GRADIENT_CLIP = 1.0
STATE = "recovery.pt"

Training = Callable[[PassContext], None]


def recover(
    model: Transformer,
    recovery: Recovery,
    context: PassContext,
    loss_of: LossFunction = next_token_loss,
    after_step: Callable[[Transformer], None] = lambda model: None,
    first_row: int = 0,
    name: str = STATE,
    extra_tensors: Mapping[str, Tensor] = MappingProxyType({}),
    rows_apart: bool = True,
) -> None:
    """Train `model` in place and leave it in `eval` mode.

    A killed recovery resumes from its last save, with the same bits; the number of workers may have changed.

    Args:
        model: the network that the pass leaves.
        recovery: tokens, batch, learning rate; its loss is `loss_of`.
        context: data, precision, workers and the folder for progress.
        loss_of: the loss to minimize.
        after_step: restores after each step what the pass has fixed, such as zeros.
        first_row: position of the first training window.
        name: of the progress file; one for each of a pass's recoveries.
        extra_tensors: tensors that `after_step` changes in place, saved and restored with the network.
        rows_apart: whether `loss_of` is a mean over rows, so that workers may share a micro-batch.
    """
    sampler, plan = context.sampler(model.config.context_length), recovery.plan(model.config.context_length)
    rows_apart = rows_apart and rows_are_independent(model)
    workers = _useful_workers(context, plan.rows, rows_apart)
    if workers > 1 and _saved_state(context, name).get("step", 0) < plan.steps:
        train = partial(
            recover,
            model,
            recovery,
            loss_of=loss_of,
            after_step=after_step,
            first_row=first_row,
            name=name,
            extra_tensors=dict(extra_tensors),
            rows_apart=rows_apart,
        )
        train_on_workers(train, workers, context)  # their last save is read below
    peak = recovery.learning_rate
    optimizer = build_optimizer(
        model,
        recovery.optimizer,
        peak,
        BETAS,
        recovery.weight_decay,
        MUON_MOMENTUM,
        context.precision,
        distributed.group.WORLD if context.worker.count > 1 else None,
    )
    gradients = worker_gradients(context.worker, model, loss_of)
    model.train()
    done = _resume(model, optimizer, context, name, extra_tensors)
    if 0 < done < plan.steps and context.worker.rank == 0:
        context.listener.logged(f"recovery resumes after step {done} of {plan.steps}")
    for step in range(done + 1, plan.steps + 1):
        batch = torch.from_numpy(sampler.rows(first_row + (step - 1) * plan.rows, plan.rows))
        micro_batches = context.worker.micro_batches(batch, rows_apart)
        rate = _learning_rate(recovery, step, plan.steps)
        training_step(model, optimizer, micro_batches, rate, GRADIENT_CLIP, context.precision, gradients=gradients)
        after_step(model)
        if context.worker.rank == 0 and (step % SAVE_EVERY_STEPS == 0 or step == plan.steps):
            _save(model, optimizer, context, name, step, extra_tensors)
            context.listener.advanced("recovery", step, plan.steps, f"step {step} of {plan.steps}")
    model.eval()


def recovery_loss(recovery: Recovery, context: PassContext) -> LossFunction:
    """The text's loss, or the teacher's and the text's; the teacher is read only if it is needed."""
    if not recovery.distill or not recovery.tokens:
        return next_token_loss
    return distillation_loss(context.teacher(), recovery.teacher_weight, recovery.temperature)


def train_on_workers(train: Training, count: int, context: PassContext) -> None:
    """Run `train` on `count` worker processes of Ray Train until all are done; workers that die are restarted.

    Each worker has the whole network, and the gradients are averaged.

    Args:
        train: called with a context that has the worker's rank; resumes from what is saved in `context.work`. It
            travels by cloudpickle, and its tensors are moved to the worker's device.
        count: number of workers.
        context: of this process; its `workers` has the resources of each.

    Raises:
        EnvironmentProblem: if the cluster has no room.
        HeadraceError: raised by a worker, for what the user can fix.
        ray.train.TrainingFailedError: if workers died more often than `max_failures`.
    """
    sha256 = save_payload(context.work, train)
    worker_context = replace(context, workers=THIS_PROCESS, listener=SilentListener())
    workers = replace(context.workers, max_workers=count, min_workers=count)
    trainer = ray_trainer(partial(_train_on_worker, worker_context, sha256), workers, context.work)
    with relayed(context.work, context.listener):
        fit(trainer)
    context.work.remove(PAYLOAD)


def _train_on_worker(context: PassContext, sha256: str, worker: Worker) -> None:
    listener = RelayedListener(context.work) if worker.rank == 0 else SilentListener()
    train: Training = load_payload(context.work, sha256, worker.device)
    train(replace(context, worker=WorkerRank(worker.rank, worker.count), listener=listener))


def _useful_workers(context: PassContext, rows: int, rows_apart: bool) -> int:
    """Number of workers, at most as many as have a part in each step."""
    requested, useful = context.workers.max_workers, max_workers(rows, rows_apart)
    if useful < requested:
        parts = f"{rows} rows" if rows_apart else f"{rows} rows in whole micro-batches of {MICRO_BATCH_ROWS}"
        context.listener.logged(
            f"recovery uses {useful} of {requested} workers: a step has {parts}; "
            "more recovery.batch_tokens would give all of them work"
        )
    return min(requested, useful)


def _learning_rate(recovery: Recovery, step: int, steps: int) -> float:
    warmup, peak = max(1, round(recovery.warmup_share * steps)), recovery.learning_rate
    return learning_rate_at(step, recovery.schedule, peak, recovery.floor_share * peak, warmup, steps)


def _save(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    context: PassContext,
    name: str,
    step: int,
    extra_tensors: Mapping[str, Tensor],
) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "beside": dict(extra_tensors),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    context.work.write(name, buffer.getvalue())


def _resume(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    context: PassContext,
    name: str,
    extra_tensors: Mapping[str, Tensor],
) -> int:
    """Restore the last save; returns its step, or 0 if there is none."""
    state = _saved_state(context, name)
    if not state:
        return 0
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for key, tensor in extra_tensors.items():
        tensor.copy_(state["beside"][key])
    return int(state["step"])


def _saved_state(context: PassContext, name: str) -> dict[str, Any]:
    """The state that `_save` wrote; empty if there is none."""
    try:
        state: dict[str, Any] = load_tensors(context.work, name)
    except FileNotFoundError:
        return {}
    return state
