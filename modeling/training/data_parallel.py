"""Data parallelism with the gradients that a single process would compute.

- `WorkerRank`: rank of this process, and its rows of a batch
- `max_workers`: the number of processes that a step has work for
- `worker_gradients`: gradients of the whole step; `AveragedGradients`: `LocalGradients` averaged over the processes
- `SummedOverProcesses`: a module of the network whose measurements are summed over all processes
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from modeling.experts.layer import Experts
from modeling.training.gradients import LocalGradients, LossFunction, local_gradients
from modeling.training.kinds import Precision

MICRO_BATCH_ROWS = 16


@dataclass(frozen=True)
class WorkerRank:
    """Rank of a process among those that train together."""

    rank: int = 0
    count: int = 1

    def micro_batches(self, batch: Tensor, independent_rows: bool) -> Sequence[Tensor]:
        """This process's micro-batches of a step's (rows, context + 1).

        Args:
            batch: all rows of the step: at least one row per process, or one micro-batch if rows are not independent.
            independent_rows: see `rows_are_independent`. If False, the micro-batches of a single process are
                distributed whole.
        """
        if independent_rows:
            return torch.split(torch.tensor_split(batch, self.count)[self.rank], MICRO_BATCH_ROWS)
        return torch.split(batch, MICRO_BATCH_ROWS)[self.rank :: self.count]


ALONE = WorkerRank()


def rows_are_independent(model: nn.Module) -> bool:
    """Whether the loss is a mean over rows; balance and capacity of experts are those of a micro-batch."""
    return not any(isinstance(module, Experts) for module in model.modules())


def max_workers(rows: int, independent_rows: bool) -> int:
    """Maximum number of processes that a step of `rows` rows can be distributed to."""
    return rows if independent_rows else -(-rows // MICRO_BATCH_ROWS)


class SummedOverProcesses(nn.Module):
    """A module that measures something in each step; `worker_gradients` sums it over the rows of all processes."""

    def __init__(self) -> None:
        super().__init__()
        self.add_up: Callable[[Tensor], None] | None = None
        """Sums a tensor over all processes, in place; None with a single process."""


class AveragedGradients(LocalGradients):
    """Gradients averaged over torch.distributed; every process has the whole network."""

    def accumulate(
        self, model: nn.Module, micro_batches: Sequence[Tensor], precision: Precision, z_loss: float, scale: float
    ) -> float:
        """As in `Gradients`; rows of all processes have equal weights."""
        loss = super().accumulate(model, micro_batches, precision, z_loss, scale)
        rows = sum(len(tokens) for tokens in micro_batches)
        # The same tensors on all processes: parts of the network without input have zero gradients.
        gradients = local_gradients(model)
        with self.clock.section("communication"):
            loss_and_count = gradients[0].new_tensor([loss, 1.0])
            flat = torch.cat([loss_and_count, *(gradient.flatten() for gradient in gradients)]).mul_(rows)
            distributed.all_reduce(flat)
            mean_loss, total_rows, *sums = torch.split(flat, [1, 1, *(gradient.numel() for gradient in gradients)])
            for gradient, total in zip(gradients, sums, strict=True):
                gradient.copy_(total.view_as(gradient) / total_rows)
        return float(mean_loss / total_rows)


def worker_gradients(worker: WorkerRank, model: nn.Module, loss: LossFunction) -> LocalGradients:
    """Gradients of the whole step, with every `SummedOverProcesses` of the network summed over the processes."""
    if worker.count == 1:
        return LocalGradients(loss=loss)
    for module in model.modules():
        if isinstance(module, SummedOverProcesses):
            module.add_up = distributed.all_reduce
    return AveragedGradients(loss=loss)
