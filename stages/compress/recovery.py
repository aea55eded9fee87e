"""Training after a pass: from the text, from the teacher's predictions, or from both; a killed one goes on.

On one process or several, with the same rows and, up to rounding, the same weights.
"""

import io
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from infra.hardware import has_fast_bf16
from modeling.loss.cross_entropy import next_token_loss
from modeling.training.data_parallel import MICRO_BATCH_ROWS, gradients_at, most_shares, rows_are_apart
from modeling.training.gradients import LossFunction
from modeling.training.kinds import Precision
from modeling.training.optimizer import build_optimizer
from modeling.training.schedule import learning_rate_at
from modeling.training.step import training_step
from modeling.transformer import Transformer
from stages.compress.pass_context import PassContext
from stages.compress.recovery_config import Recovery
from stages.compress.recovery_workers import train_on_workers

SAVE_EVERY_STEPS = 100
BETAS, MUON_MOMENTUM = (0.9, 0.95), 0.95
STATE = "recovery.pt"


def recover(
    model: Transformer,
    recovery: Recovery,
    context: PassContext,
    loss_of: LossFunction = next_token_loss,
    after_step: Callable[[nn.Module], None] = lambda model: None,
    first_row: int = 0,
    name: str = STATE,
    beside: Mapping[str, Tensor] = MappingProxyType({}),
    rows_apart: bool = True,
) -> None:
    """Train `model` in place; it ends in `eval` mode. A killed recovery goes on from its last save, to the same bits.

    With another number of workers than before it goes on as well.

    Args:
        model: what the pass left.
        recovery: tokens, rate, batch; whoever distils makes `loss_of` from the rest of it.
        context: data and the place for progress.
        loss_of: what is minimized.
        after_step: keeps what the pass did, such as zeros, after each step.
        first_row: position of the first training window.
        name: of the progress file; one for each of a pass's recoveries.
        beside: tensors that `after_step` changes in place, saved and restored with the network.
        rows_apart: whether `loss_of` is a mean over rows, so that a micro-batch may be shared out among workers.
    """
    sampler = context.sampler(model.config.context_length)
    rows = max(1, recovery.batch_tokens // model.config.context_length)
    steps = recovery.tokens // (rows * model.config.context_length)
    rows_apart = rows_apart and rows_are_apart(model)
    if (workers := _useful_workers(context, rows, rows_apart)) > 1 and _saved(context, name).get("step", 0) < steps:
        train = partial(
            recover,
            model,
            recovery,
            loss_of=loss_of,
            after_step=after_step,
            first_row=first_row,
            name=name,
            beside=dict(beside),
            rows_apart=rows_apart,
        )
        train_on_workers(train, workers, context)  # what they have saved is read below
    peak = recovery.learning_rate
    optimizer = build_optimizer(model, recovery.optimizer, peak, BETAS, recovery.weight_decay, MUON_MOMENTUM)
    gradients = gradients_at(context.place, model, loss_of)
    model.train()
    done = _resumed(model, optimizer, context, name, beside)
    if 0 < done < steps and context.place.rank == 0:
        context.listener.logged(f"recovery goes on behind step {done} of {steps}")
    for step in range(done + 1, steps + 1):
        batch = torch.from_numpy(sampler.rows(first_row + (step - 1) * rows, rows))
        warmup = max(1, round(recovery.warmup_share * steps))
        rate = learning_rate_at(step, recovery.schedule, peak, recovery.floor_share * peak, warmup, steps)
        micro_batches = context.place.micro_batches(batch, rows_apart)
        training_step(model, optimizer, micro_batches, rate, 1.0, recovery_precision(), gradients=gradients)
        after_step(model)
        if context.place.rank == 0 and (step % SAVE_EVERY_STEPS == 0 or step == steps):
            _save(model, optimizer, context, name, step, beside)
            context.listener.advanced("recovery", step, steps, f"step {step} of {steps}")
    model.eval()


def recovery_precision() -> Precision:
    """bf16 where the processor multiplies it natively."""
    return "bf16" if has_fast_bf16() else "fp32"


def _save(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    context: PassContext,
    name: str,
    step: int,
    beside: Mapping[str, Tensor],
) -> None:
    buffer = io.BytesIO()
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "beside": dict(beside)}
    torch.save(state, buffer)
    context.work.write(name, buffer.getvalue())


def _resumed(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    context: PassContext,
    name: str,
    beside: Mapping[str, Tensor],
) -> int:
    """Steps that are behind a recovery that was killed."""
    saved = _saved(context, name)
    if not saved:
        return 0
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    for key, tensor in beside.items():
        tensor.copy_(saved["beside"][key])
    return int(saved["step"])


def _saved(context: PassContext, name: str) -> dict[str, Any]:
    """What `_save` left; empty where it has not been called."""
    try:
        data = context.work.read(name)
    except FileNotFoundError:
        return {}
    saved: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return saved


def _useful_workers(context: PassContext, rows: int, rows_apart: bool) -> int:
    """As many as are wanted and get a part of each step."""
    wanted, useful = context.workers.most, most_shares(rows, rows_apart)
    if useful < wanted:
        parts = f"{rows} rows" if rows_apart else f"{rows} rows in micro-batches of {MICRO_BATCH_ROWS} that stay whole"
        context.listener.logged(
            f"recovery uses {useful} of {wanted} workers: a step has {parts}; "
            "more recovery.batch_tokens would give all of them work"
        )
    return min(wanted, useful)
