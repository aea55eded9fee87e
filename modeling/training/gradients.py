"""How a step gets its gradients: accumulated over micro-batches, measured, clipped.

- `Gradients`: what a training step asks for, on one process or many
- `LocalGradients`: of a network that this process has whole, or as a replica
- `StepClock`: the time that each part of the steps takes
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
    """Adds up wall-clock seconds by section; a section inside another counts for itself alone."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._inside = 0.0
        """Seconds of sections inside the open one."""

    @contextmanager
    def section(self, name: Section) -> Iterator[None]:
        """Time a block. On a GPU it is the time to queue the work, or to wait for a result of it."""
        outer, self._inside = self._inside, 0.0
        begun = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - begun
            self._seconds[name] = self._seconds.get(name, 0.0) + elapsed - self._inside
            self._inside = outer + elapsed

    def take(self) -> dict[str, float]:
        """Seconds since the last call, by section."""
        taken, self._seconds = self._seconds, {}
        return taken


class Gradients(Protocol):
    """The parts of a step that depend on who has which part of the network."""

    clock: StepClock
    """Where the time goes."""

    def accumulate(
        self, model: nn.Module, micro_batches: Sequence[Tensor], precision: Precision, z_loss: float, scale: float
    ) -> float:
        """Leave `scale` times the mean gradient over all rows in `.grad`; returns the mean cross-entropy here."""

    def norm(self, model: nn.Module) -> float:
        """L2 norm of the whole network's gradient, the same on every process."""


class LocalGradients:
    """Of a network that is whole here; replicas average theirs in the last micro-batch."""

    def __init__(self, clock: StepClock | None = None, loss_of: LossFunction = next_token_loss) -> None:
        """Take the clock to tell, and what is minimized: given model, rows (batch, context + 1) and z-loss weight."""
        self.clock, self.loss_of = clock or StepClock(), loss_of

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
            self.loss_of,
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
    loss_of: LossFunction = next_token_loss,
) -> float:
    """Forward and backward of each micro-batch, each row weighing the same.

    Args:
        model: gives a `TrainingLoss`.
        micro_batches: tensors (rows, context + 1) int64 on any device.
        precision: of matrix products; weights, norms and loss stay float32.
        z_loss: weight of the squared log-sum-exp of the logits.
        scale: of the loss that is differentiated.
        synchronized: given whether a micro-batch is the last, the context it is worked on in.
        clock: told of forward and backward.
        loss_of: what is minimized.

    Returns:
        Mean cross-entropy in nats per token.
    """
    device = next(model.parameters()).device
    rows = sum(len(tokens) for tokens in micro_batches)
    total = torch.zeros((), device=device)
    for number, tokens in enumerate(micro_batches, start=1):
        with synchronized(number == len(micro_batches)):
            with clock.section("forward"), autocast(device, precision):
                loss = loss_of(model, tokens.to(device), z_loss)
            share = len(tokens) / rows
            with clock.section("backward"):
                (loss.total * (share * scale)).backward()  # type: ignore[no-untyped-call]
        total += loss.cross_entropy * share
    return float(total)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Matrix products in a shorter type; nothing for fp32."""
    return torch.autocast(device.type, AUTOCAST.get(precision, torch.bfloat16), enabled=precision != "fp32")


def local_gradients(model: nn.Module) -> list[Tensor]:
    """The gradients, or the parts of them, that are here."""
    return [local(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]


def local(tensor: Tensor) -> Tensor:
    """What is here of a tensor, as a view."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def scale_gradients(gradients: Iterable[Tensor], factor: float) -> None:
    """Multiply in place."""
    if factor != 1:
        torch._foreach_mul_(list(gradients), factor)


def _synchronized(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()
