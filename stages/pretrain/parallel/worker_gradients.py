"""Gradients of a network that is shared out: when they are averaged, and how long they are together."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from modeling.training.gradients import StepClock, accumulate, local
from modeling.training.kinds import Precision
from stages.pretrain.parallel.mesh import Group, WorkerMesh
from stages.pretrain.parallel.parallelize import shared_out_experts


class WorkerGradients:
    """As `modeling.training.gradients.Gradients`, on the workers of a mesh."""

    def __init__(self, mesh: WorkerMesh) -> None:
        self.mesh = mesh
        self.clock = StepClock()

    def accumulate(
        self, model: nn.Module, micro_batches: Sequence[Tensor], precision: Precision, z_loss: float, scale: float
    ) -> float:
        """Leave `scale` times the gradient averaged over the workers' rows in `.grad`."""
        loss = accumulate(
            model, micro_batches, precision, z_loss, scale, lambda last: _averaged(model, last), self.clock
        )
        with self.clock.section("communication"):
            place_gradients(model)
            self.average_experts(model)
        return loss

    def average_experts(self, model: nn.Module) -> None:
        """Experts that are shared out got the gradients of all rows that came to them, from any worker."""
        for parameter in shared_out_experts(model, self.mesh):
            if parameter.grad is not None:
                gradient = local(parameter.grad)
                distributed.all_reduce(gradient, group=self.mesh.expert_replicas)
                gradient /= self.mesh.batch_size

    def norm(self, model: nn.Module) -> float:
        """L2 norm of the whole network's gradient, from the parts that the workers hold."""
        with self.clock.section("communication"):
            return global_norm(self.parts(model))

    def parts(self, model: nn.Module) -> dict[tuple[Group, ...], list[Tensor]]:
        """Local gradients by the groups whose members hold other parts of the same kind."""
        apart = {id(parameter) for parameter in shared_out_experts(model, self.mesh)}
        parts: dict[tuple[Group, ...], list[Tensor]] = {}
        for parameter in model.parameters():
            if parameter.grad is None:
                continue
            local, groups = _local_part(parameter.grad)
            if id(parameter) in apart:
                assert self.mesh.experts is not None
                groups = (*groups, self.mesh.experts)
            parts.setdefault(groups, []).append(local)
        return parts


def place_gradients(model: nn.Module) -> None:
    """Share gradients out as their parameters are: those of a shared vocabulary come as sums to be made."""
    for parameter in model.parameters():
        gradient = parameter.grad
        if not (isinstance(parameter, DTensor) and isinstance(gradient, DTensor)):
            continue
        if gradient.placements != parameter.placements:
            parameter.grad = gradient.redistribute(placements=parameter.placements)


def global_norm(parts: dict[tuple[Group, ...], list[Tensor]], everyone: Iterable[Group] = ()) -> float:
    """Square root of the sum of squares over the processes of each part's groups, then of those of `everyone`."""
    total = torch.zeros((), dtype=torch.float64)
    for groups, gradients in parts.items():
        norms = torch.stack(torch._foreach_norm(gradients))
        squares = norms.double().square().sum()
        for group in groups:
            distributed.all_reduce(squares, group=group)
        total = total.to(squares.device) + squares
    for group in everyone:
        distributed.all_reduce(total, group=group)
    return float(total.sqrt())


def _local_part(gradient: Tensor) -> tuple[Tensor, tuple[Group, ...]]:
    """What is here, and the groups that hold the other parts."""
    if not isinstance(gradient, DTensor):
        return gradient, ()
    mesh = gradient.device_mesh
    groups = [mesh.get_group(dim) for dim, placement in enumerate(gradient.placements) if not placement.is_replicate()]
    return gradient.to_local(), tuple(groups)


@contextmanager
def _averaged(model: nn.Module, last: bool) -> Iterator[None]:
    """Workers average their gradients in the last micro-batch only."""
    if isinstance(model, DistributedDataParallel) and not last:
        with model.no_sync():
            yield
        return
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    yield
