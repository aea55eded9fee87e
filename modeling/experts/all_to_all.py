"""Expert parallelism: rows are sent to the process of their expert and returned (GShard, 2006.16668, 2.2)."""

from collections.abc import Sequence

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.distributed._functional_collectives import all_to_all_single

from modeling.experts.router import Routing


class AllToAllExchange:
    """Exchange of one layer's rows: two all-to-alls of rows, and one of their counts."""

    def __init__(self, rows: Tensor, routing: Routing, group: distributed.ProcessGroup) -> None:
        """Exchange the counts of rows.

        Args:
            rows: (tokens, width) of this process.
            routing: of these rows.
            group: processes that have an equal number of experts each.
        """
        self.rows, self.routing, self.group = rows, routing, group
        self._sent = routing.counts.view(group.size(), -1)
        """(processes, experts per process), rows that this process sends to each expert."""
        self._received = torch.empty_like(self._sent)
        distributed.all_to_all_single(self._received, self._sent, group=group)

    def dispatch(self) -> Sequence[Tensor]:
        """Rows of all processes for each expert of this process."""
        sent = self.rows.index_select(0, self.routing.tokens)
        received = self._exchange(sent, self._received, self._sent)
        return torch.split(received.index_select(0, self._by_expert), self._received.sum(0).tolist())

    def combine(self, outputs: Sequence[Tensor]) -> Tensor:
        """Each expert's outputs, in the order of `dispatch` -> (tokens, width), their weighted sum for each token."""
        by_process = torch.empty_like(self._by_expert)
        by_process[self._by_expert] = torch.arange(len(by_process), device=by_process.device)
        by_sender = torch.cat(list(outputs)).index_select(0, by_process)
        returned = self._exchange(by_sender, self._sent, self._received)
        weighted = returned * self.routing.weights[:, None]
        total = weighted.new_zeros(self.rows.shape).index_add(0, self.routing.tokens, weighted)
        return total.to(returned.dtype)

    def _exchange(self, rows: Tensor, received: Tensor, sent: Tensor) -> Tensor:
        counts = (received.sum(1).tolist(), sent.sum(1).tolist())
        exchanged: Tensor = all_to_all_single(rows.contiguous(), *counts, self.group)
        return exchanged

    @property
    def _by_expert(self) -> Tensor:
        """Indices of the received rows, which are ordered by process, in the order of the experts."""
        experts = torch.arange(self._received.numel(), device=self._received.device) % self._received.shape[1]
        return experts.repeat_interleave(self._received.flatten()).argsort(stable=True)
