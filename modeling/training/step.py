"""A training step: accumulate gradients over micro-batches, clip, update."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_schemas.errors import TrainingDivergedError
from modeling.finite_weights import first_non_finite
from modeling.training.gradients import Gradients, LocalGradients, local_gradients, scale_gradients
from modeling.training.kinds import Precision
from modeling.training.loss_scale import LossScale


@dataclass(frozen=True)
class StepResult:
    """Measurements of a training step."""

    loss: float
    """Mean cross-entropy over this process's tokens before the update, nats per token."""
    gradient_norm: float
    """L2 norm over all parameters before clipping, of the gradient averaged over processes."""
    skipped: bool = False
    """Whether the update was skipped: the gradient overflowed in float16, or `judge` rejected it."""


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Tensor],
    learning_rate: float,
    clip_norm: float,
    precision: Precision,
    z_loss: float = 0.0,
    gradients: Gradients | None = None,
    loss_scale: LossScale | None = None,
    judge: Callable[[float, float], bool] | None = None,
) -> StepResult:
    """Update the model with the mean gradient over all micro-batches.

    Args:
        model: a `Transformer`, wrapped, parallelized or neither.
        optimizer: optimizer of the model's parameters.
        micro_batches: tensors (rows, context + 1) int64 on any device; all rows have equal weights.
        learning_rate: learning rate of this step; multiplied by the scale of each parameter group.
        clip_norm: gradient norm to clip to (Pascanu et al. 2013, 1211.5063).
        precision: bf16 and fp16 compute matrix products under autocast; weights, norms and loss stay float32.
        z_loss: weight of the squared log-sum-exp of the logits.
        gradients: accumulation and norm of gradients; by default `LocalGradients`, for a network on one process.
        loss_scale: loss scale for fp16; an overflow skips the step and halves it.
        judge: decides from loss and gradient norm whether to make the update; by default every finite step does.

    Raises:
        TrainingDivergedError: if the gradient is non-finite and there is no `judge`; the model is unchanged.
    """
    gradients = gradients or LocalGradients()
    scale = loss_scale.value if loss_scale else 1.0
    optimizer.zero_grad(set_to_none=True)
    loss = gradients.accumulate(model, micro_batches, precision, z_loss, scale)
    with gradients.clock.section("optimizer"):
        gradient_norm = gradients.norm(model) / scale
        finite = math.isfinite(gradient_norm)
        if not finite and loss_scale and not loss_scale.exhausted:
            loss_scale.overflowed()
            return StepResult(loss, gradient_norm, skipped=True)
        if judge is not None and not judge(loss, gradient_norm):
            return StepResult(loss, gradient_norm, skipped=True)
        if not finite:
            raise diverged(model, _steps_taken(optimizer) + 1, loss, gradient_norm, learning_rate, clip_norm)
        scale_gradients(local_gradients(model), min(1.0, clip_norm / (gradient_norm + 1e-6)) / scale)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["learning_rate_scale"]
        optimizer.step()
    if loss_scale:
        loss_scale.succeeded()
    return StepResult(loss, gradient_norm)


def diverged(
    model: nn.Module, step: int, loss: float, gradient_norm: float, learning_rate: float, clip_norm: float
) -> TrainingDivergedError:
    """Error for a non-finite or outlying gradient."""
    return TrainingDivergedError(
        f"training diverged at step {step}: the loss is {loss:.4g} and the gradient norm "
        f"{gradient_norm:.4g} at learning rate {learning_rate:.3g}; {_non_finite(model)}lower the peak learning rate "
        f"(a third of it is a good next try) or clip_norm (now {clip_norm:g}), or warm up longer"
    )


def _non_finite(model: nn.Module) -> str:
    """Name of the first non-finite tensor, if any; the gradient norm may overflow with finite gradients."""
    name = first_non_finite(model)
    return f"{name}; " if name else ""


def _steps_taken(optimizer: torch.optim.Optimizer) -> int:
    return max((int(state["step"]) for state in optimizer.state.values() if "step" in state), default=0)
