"""Gradients of a training step: accumulation over micro-batches, norm, scaling.

- `Gradients`: interface used by a training step, on one process or many
- `LocalGradients`: gradients of a network that is whole on this process, or a replica
- `StepClock`: time of each section of a step
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from modeling.loss.cross_entropy import TrainingLoss, next_token_loss
from modeling.training.kinds import Precision

Section = Literal["data", "forward", "backward", "communication", "optimizer", "checkpoint"]
LossFunction = Callable[[nn.Module, Tensor, float], TrainingLoss]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class StepClock:
    """Sums wall-clock seconds by section; the time of a nested section counts only for the inner one."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._inside = 0.0
        """Seconds of sections nested in the current one."""

    @contextmanager
    def section(self, name: Section) -> Iterator[None]:
        """Time a block. On a GPU, this is the time to queue kernels or to wait for their results."""
        outer, self._inside = self._inside, 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self._seconds[name] = self._seconds.get(name, 0.0) + elapsed - self._inside
            self._inside = outer + elapsed

    def take(self) -> dict[str, float]:
        """Seconds since the last call, by section."""
        seconds, self._seconds = self._seconds, {}
        return seconds


class Gradients(Protocol):
    """Operations of a step that depend on how the network is distributed."""

    clock: StepClock
    """Clock of the sections."""

    def accumulate(
        self, model: nn.Module, micro_batches: Sequence[Tensor], precision: Precision, z_loss: float, scale: float
    ) -> float:
        """Accumulate `scale` times the mean gradient over all rows in `.grad`; returns the local mean cross-entropy."""

    def norm(self, model: nn.Module) -> float:
        """L2 norm of the gradient of the whole network, the same on every process."""


class LocalGradients:
    """Gradients of a network that is whole on this process; DDP replicas average them in the last micro-batch."""

    def __init__(self, clock: StepClock | None = None, loss: LossFunction = next_token_loss) -> None:
        """Create with a clock and a loss function of model, rows (batch, context + 1) and z-loss weight."""
        self.clock, self.loss = clock or StepClock(), loss

    def accumulate(
        self, model: nn.Module, micro_batches: Sequence[Tensor], precision: Precision, z_loss: float, scale: float
    ) -> float:
        """As in `Gradients`."""
        return accumulate(
            model,
            micro_batches,
            precision,
            z_loss,
            scale,
            lambda last: _synchronized(model, last),
            self.clock,
            self.loss,
        )

    def norm(self, model: nn.Module) -> float:
        """As in `Gradients`."""
        return float(nn.utils.get_total_norm(local_gradients(model)))


def accumulate(
    model: nn.Module,
    micro_batches: Sequence[Tensor],
    precision: Precision,
    z_loss: float,
    scale: float,
    synchronized: Callable[[bool], AbstractContextManager[None]],
    clock: StepClock,
    loss_function: LossFunction = next_token_loss,
) -> float:
    """Forward and backward pass of each micro-batch; all rows have equal weights.

    Args:
        model: network to train.
        micro_batches: tensors (rows, context + 1) int64 on any device.
        precision: precision of matrix products; weights, norms and loss stay float32.
        z_loss: weight of the squared log-sum-exp of the logits.
        scale: factor on the loss before the backward pass.
        synchronized: context manager for a micro-batch, from whether it is the last one.
        clock: times forward and backward.
        loss_function: loss to minimize.

    Returns:
        Mean cross-entropy in nats per token.
    """
    device = next(model.parameters()).device
    rows = sum(len(tokens) for tokens in micro_batches)
    total = torch.zeros((), device=device)
    for number, tokens in enumerate(micro_batches, start=1):
        with synchronized(number == len(micro_batches)):
            with clock.section("forward"), autocast(device, precision):
                loss = loss_function(model, tokens.to(device), z_loss)
            share = len(tokens) / rows
            with clock.section("backward"):
                (loss.total * (share * scale)).backward()  # type: ignore[no-untyped-call]
        total += loss.cross_entropy * share
    return float(total)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Autocast of matrix products; disabled for tf32 and fp32."""
    return torch.autocast(device.type, AUTOCAST.get(precision, torch.bfloat16), enabled=precision in AUTOCAST)


def local_gradients(model: nn.Module) -> list[Tensor]:
    """Gradients, or the local parts of them."""
    return [local(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]


def local(tensor: Tensor) -> Tensor:
    """Local part of a tensor, as a view."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def scale_gradients(gradients: Iterable[Tensor], factor: float) -> None:
    """Multiply gradients in place."""
    if factor != 1:
        torch._foreach_mul_(list(gradients), factor)


def _synchronized(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()
