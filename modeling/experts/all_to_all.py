"""Experts on several processes: rows go to the one that has their expert, and come back (GShard, 2006.16668, 2.2)."""

from collections.abc import Sequence

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.distributed._functional_collectives import all_to_all_single

from modeling.experts.router import Routing


class AllToAllExchange:
    """One layer's rows to their experts and back, by two all-to-alls of rows and one of their numbers."""

    def __init__(self, rows: Tensor, routing: Routing, group: distributed.ProcessGroup) -> None:
        """Take this process's rows (tokens, width) and their routing; each process of `group` has as many experts."""
        self.rows, self.routing, self.group = rows, routing, group
        self._sent = routing.counts.view(group.size(), -1)
        """(processes, experts each), rows from here to each expert."""
        self._received = torch.empty_like(self._sent)
        distributed.all_to_all_single(self._received, self._sent, group=group)

    def dispatch(self) -> Sequence[Tensor]:
        """The rows of all processes for each expert that is here."""
        sent = self.rows.index_select(0, self.routing.tokens)
        arrived = self._exchange(sent, self._received, self._sent)
        return torch.split(arrived.index_select(0, self._by_expert), self._received.sum(0).tolist())

    def combine(self, outputs: Sequence[Tensor]) -> Tensor:
        """Each expert's outputs, in the order of `dispatch` -> (tokens, width), their weighted sum for each token."""
        by_process = torch.empty_like(self._by_expert)
        by_process[self._by_expert] = torch.arange(len(by_process), device=by_process.device)
        answers = torch.cat(list(outputs)).index_select(0, by_process)
        returned = self._exchange(answers, self._sent, self._received)
        weighted = returned * self.routing.weights[:, None]
        total = weighted.new_zeros(self.rows.shape).index_add(0, self.routing.tokens, weighted)
        return total.to(returned.dtype)

    def _exchange(self, rows: Tensor, arriving: Tensor, leaving: Tensor) -> Tensor:
        counts = (arriving.sum(1).tolist(), leaving.sum(1).tolist())
        exchanged: Tensor = all_to_all_single(rows.contiguous(), *counts, self.group)
        return exchanged

    @property
    def _by_expert(self) -> Tensor:
        """Places of the arrived rows, which come process by process, in the order of the experts."""
        experts = torch.arange(self._received.numel(), device=self._received.device) % self._received.shape[1]
        return experts.repeat_interleave(self._received.flatten()).argsort(stable=True)
