"""Gradients of a parallelized network: accumulation, averaging over workers, and their global norm."""

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
from stages.pretrain.parallel.parallelize import expert_parallel_parameters


class WorkerGradients:
    """`modeling.training.gradients.Gradients` on the workers of a mesh."""

    def __init__(self, mesh: WorkerMesh) -> None:
        self.mesh = mesh
        self.clock = StepClock()

    def accumulate(
        self, model: nn.Module, micro_batches: Sequence[Tensor], precision: Precision, z_loss: float, scale: float
    ) -> float:
        """Accumulate `scale` times the gradient, averaged over the workers' rows, in `.grad`; returns the mean loss."""
        loss = accumulate(
            model, micro_batches, precision, z_loss, scale, lambda last: _synchronized(model, last), self.clock
        )
        with self.clock.section("communication"):
            place_gradients(model)
            self.average_experts(model)
        return loss

    def average_experts(self, model: nn.Module) -> None:
        """Average the gradients of split experts, which sum over the rows of all workers of an expert group."""
        for parameter in expert_parallel_parameters(model, self.mesh):
            if parameter.grad is not None:
                gradient = local(parameter.grad)
                distributed.all_reduce(gradient, group=self.mesh.expert_replicas)
                gradient /= self.mesh.batch_size

    def norm(self, model: nn.Module) -> float:
        """L2 norm of the gradient of the whole network, over all workers."""
        with self.clock.section("communication"):
            return global_norm(self.parts(model))

    def parts(self, model: nn.Module) -> dict[tuple[Group, ...], list[Tensor]]:
        """Local gradients by the process groups over which their squared norms are summed."""
        split_experts = {id(parameter) for parameter in expert_parallel_parameters(model, self.mesh)}
        parts: dict[tuple[Group, ...], list[Tensor]] = {}
        for parameter in model.parameters():
            if parameter.grad is None:
                continue
            local, groups = _local_part(parameter.grad)
            if id(parameter) in split_experts:
                assert self.mesh.experts is not None
                groups = (*groups, self.mesh.experts)
            parts.setdefault(groups, []).append(local)
        return parts


def place_gradients(model: nn.Module) -> None:
    """Redistribute gradients to their parameters' placements; those of a split vocabulary are partial sums."""
    for parameter in model.parameters():
        gradient = parameter.grad
        if not (isinstance(parameter, DTensor) and isinstance(gradient, DTensor)):
            continue
        if gradient.placements != parameter.placements:
            parameter.grad = gradient.redistribute(placements=parameter.placements)


def global_norm(parts: dict[tuple[Group, ...], list[Tensor]], total_groups: Iterable[Group] = ()) -> float:
    """L2 norm: squares are summed over the groups of each part, then the total over `total_groups`."""
    total = torch.zeros((), dtype=torch.float64)
    for groups, gradients in parts.items():
        norms = torch.stack(torch._foreach_norm(gradients))
        squares = norms.double().square().sum()
        for group in groups:
            distributed.all_reduce(squares, group=group)
        total = total.to(squares.device) + squares
    for group in total_groups:
        distributed.all_reduce(total, group=group)
    return float(total.sqrt())


def _local_part(gradient: Tensor) -> tuple[Tensor, tuple[Group, ...]]:
    """The local part of a gradient, and the groups that hold the other parts."""
    if not isinstance(gradient, DTensor):
        return gradient, ()
    mesh = gradient.device_mesh
    groups = [mesh.get_group(dim) for dim, placement in enumerate(gradient.placements) if not placement.is_replicate()]
    return gradient.to_local(), tuple(groups)


@contextmanager
def _synchronized(model: nn.Module, last: bool) -> Iterator[None]:
    """Synchronize gradients only in the last micro-batch."""
    if isinstance(model, DistributedDataParallel) and not last:
        with model.no_sync():
            yield
        return
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    yield
