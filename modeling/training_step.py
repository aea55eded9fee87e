"""One optimiser step: accumulate gradients over micro-batches, clip, update."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data_schemas.errors import TrainingDivergedError
from modeling.finite_weights import first_non_finite
from modeling.loss import next_token_loss

Precision = Literal["bf16", "fp32"]


@dataclass(frozen=True)
class StepResult:
    """What one step measured."""

    loss: float
    """Mean cross-entropy over this process's tokens before the update, nats per token."""
    gradient_norm: float
    """L2 norm over all parameters before clipping; under data parallelism of the gradient averaged over ranks."""


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Tensor],
    learning_rate: float,
    clip_norm: float,
    precision: Precision,
    z_loss: float = 0.0,
) -> StepResult:
    """Update the model once with the mean gradient over all micro-batches.

    Args:
        model: a `Transformer`, wrapped by DistributedDataParallel or not.
        optimizer: over the model's parameters.
        micro_batches: tensors (rows, context + 1) int64 on any device; each row weighs the same.
        learning_rate: of this step.
        clip_norm: gradients longer than this are scaled down to it (Pascanu et al. 2013, 1211.5063).
        precision: "bf16" runs matrix products under autocast; weights, norms and loss stay float32.
        z_loss: weight of the squared log-sum-exp of the logits.

    Raises:
        TrainingDivergedError: where loss or gradient are not finite; the model is left as it was.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["learning_rate_scale"]
    optimizer.zero_grad(set_to_none=True)
    loss = _accumulate_gradients(model, micro_batches, precision, z_loss)
    gradient_norm = float(nn.utils.clip_grad_norm_(model.parameters(), clip_norm))
    if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
        raise TrainingDivergedError(
            f"training diverged at step {_steps_taken(optimizer) + 1}: the loss is {loss:.4g} and the gradient norm "
            f"{gradient_norm:.4g} at learning rate {learning_rate:.3g}; {_where(model)}lower the peak learning rate "
            f"(a third of it is a good next try) or clip_norm (now {clip_norm:g}), or warm up longer"
        )
    optimizer.step()
    return StepResult(loss, gradient_norm)


def _accumulate_gradients(
    model: nn.Module, micro_batches: Sequence[Tensor], precision: Precision, z_loss: float
) -> float:
    """Leave the mean gradient in `.grad`; returns the mean cross-entropy."""
    device = next(model.parameters()).device
    rows = sum(len(tokens) for tokens in micro_batches)
    total = torch.zeros((), device=device)
    for number, tokens in enumerate(micro_batches, start=1):
        with _synchronized(model, last=number == len(micro_batches)):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = next_token_loss(model, tokens.to(device), z_loss)
            share = len(tokens) / rows
            (loss.total * share).backward()  # type: ignore[no-untyped-call]
        total += loss.cross_entropy * share
    return float(total)


def _synchronized(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Ranks average their gradients in the last micro-batch only."""
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()


def _where(model: nn.Module) -> str:
    """Names the first tensor that is not finite, where one is: a gradient norm may overflow though no gradient does."""
    found = first_non_finite(model)
    return f"{found}; " if found else ""


def _steps_taken(optimizer: torch.optim.Optimizer) -> int:
    return max((int(state["step"]) for state in optimizer.state.values()), default=0)
