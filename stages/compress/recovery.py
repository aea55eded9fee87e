"""Training after a pass: from the text, from the teacher's predictions, or from both; a killed one goes on."""

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from infra.hardware import has_fast_bf16
from modeling.gradients import LocalGradients, LossFunction
from modeling.loss import next_token_loss
from modeling.optimizer import build_optimizer
from modeling.schedule import learning_rate_at
from modeling.training_choices import Precision
from modeling.training_step import training_step
from modeling.transformer import Transformer
from stages.compress.pass_context import PassContext
from stages.compress.recovery_config import Recovery

MICRO_BATCH_ROWS = 16
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
) -> None:
    """Train `model` in place; it ends in `eval` mode. A killed recovery goes on from its last save, to the same bits.

    Args:
        model: what the pass left.
        recovery: tokens, rate, batch; whoever distils makes `loss_of` from the rest of it.
        context: data and the place for progress.
        loss_of: what is minimised.
        after_step: keeps what the pass did, such as zeros, after each step.
        first_row: position of the first training window.
        name: of the progress file; one for each of a pass's recoveries.
        beside: tensors that `after_step` changes in place, saved and restored with the network.
    """
    sampler = context.sampler(model.config.context_length)
    rows = max(1, recovery.batch_tokens // model.config.context_length)
    steps = recovery.tokens // (rows * model.config.context_length)
    peak = recovery.learning_rate
    optimizer = build_optimizer(model, recovery.optimizer, peak, BETAS, recovery.weight_decay, MUON_MOMENTUM)
    gradients = LocalGradients(loss_of=loss_of)
    model.train()
    for step in range(_resumed(model, optimizer, context, name, beside) + 1, steps + 1):
        batch = torch.from_numpy(sampler.rows(first_row + (step - 1) * rows, rows))
        warmup = max(1, round(recovery.warmup_share * steps))
        rate = learning_rate_at(step, recovery.schedule, peak, recovery.floor_share * peak, warmup, steps)
        micro_batches = list(torch.split(batch, MICRO_BATCH_ROWS))
        training_step(model, optimizer, micro_batches, rate, 1.0, recovery_precision(), gradients=gradients)
        after_step(model)
        if step % SAVE_EVERY_STEPS == 0 or step == steps:
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
    if not context.work.exists(name):
        return 0
    saved = torch.load(io.BytesIO(context.work.read(name)), weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    for key, tensor in beside.items():
        tensor.copy_(saved["beside"][key])
    return int(saved["step"])
