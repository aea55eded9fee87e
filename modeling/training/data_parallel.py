"""One step's rows on several processes, with the gradients that one process would have had.

- `WorkerRank`: which of the processes this is, and which rows are its own
- `most_shares`: how many processes a step has work for
- `gradients_at`: of the whole step; `AveragedGradients`: as `LocalGradients`, averaged over the processes
- `SummedOverProcesses`: a module of the network whose measurements are those of all processes
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
    """Of a process among those that train together."""

    rank: int = 0
    count: int = 1

    def micro_batches(self, batch: Tensor, rows_apart: bool) -> Sequence[Tensor]:
        """This process's part of a step's (rows, context + 1), in micro-batches.

        Args:
            batch: all rows of the step, at least one for each process (one micro-batch, where rows are not apart).
            rows_apart: see `rows_are_apart`. Otherwise micro-batches are those of one process, each on one of many.
        """
        if rows_apart:
            return torch.split(torch.tensor_split(batch, self.count)[self.rank], MICRO_BATCH_ROWS)
        return torch.split(batch, MICRO_BATCH_ROWS)[self.rank :: self.count]


ALONE = WorkerRank()


def rows_are_apart(model: nn.Module) -> bool:
    """Whether the loss is a mean over rows; experts are balanced, and may be full, over a micro-batch."""
    return not any(isinstance(module, Experts) for module in model.modules())


def most_shares(rows: int, rows_apart: bool) -> int:
    """Most processes that get a part of a step of so many rows."""
    return rows if rows_apart else -(-rows // MICRO_BATCH_ROWS)


class SummedOverProcesses(nn.Module):
    """A module that measures something in each step; `gradients_at` makes it measure the rows of all processes."""

    def __init__(self) -> None:
        super().__init__()
        self.add_up: Callable[[Tensor], None] | None = None
        """Adds up a tensor over all processes, in place; None if there is one process."""


class AveragedGradients(LocalGradients):
    """Of a network that every process of torch.distributed has whole."""

    def accumulate(
        self, model: nn.Module, micro_batches: Sequence[Tensor], precision: Precision, z_loss: float, scale: float
    ) -> float:
        """As in `Gradients`, each row of all processes weighing the same."""
        loss = super().accumulate(model, micro_batches, precision, z_loss, scale)
        rows = sum(len(tokens) for tokens in micro_batches)
        # The same tensors everywhere: a part of the network that no row came to has gradients of zero.
        gradients = local_gradients(model)
        with self.clock.section("communication"):
            told = gradients[0].new_tensor([loss, 1.0])
            together = torch.cat([told, *(gradient.flatten() for gradient in gradients)]).mul_(rows)
            distributed.all_reduce(together)
            mean_loss, total_rows, *sums = torch.split(together, [1, 1, *(one.numel() for one in gradients)])
            for gradient, total in zip(gradients, sums, strict=True):
                gradient.copy_(total.view_as(gradient) / total_rows)
        return float(mean_loss / total_rows)


def gradients_at(worker: WorkerRank, model: nn.Module, loss_of: LossFunction) -> LocalGradients:
    """Those of the whole step, with every `SummedOverProcesses` of the network summed over the processes."""
    if worker.count == 1:
        return LocalGradients(loss_of=loss_of)
    for module in model.modules():
        if isinstance(module, SummedOverProcesses):
            module.add_up = distributed.all_reduce
    return AveragedGradients(loss_of=loss_of)
