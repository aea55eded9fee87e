"""Processes that share the tokens of each row (context parallelism), each with a stretch of them.

Queries stay where they are; keys and values are gathered, as Llama 3 does (Grattafiori et al. 2024, 2407.21783, 3.3.2).
torch's own context parallelism rings its CUDA kernels for full attention only.
"""

import torch.distributed as distributed
from torch import Tensor
from torch.distributed._functional_collectives import all_gather_single_autograd


class GroupTokenShare:
    """This process's stretch of each row, by its rank in a process group."""

    def __init__(self, group: distributed.ProcessGroup) -> None:
        self.group = group

    def first(self, tokens: int) -> int:
        """Place in the row of the first of the `tokens` that are here."""
        return self.group.rank() * tokens

    def cut(self, rows: Tensor) -> Tensor:
        """(batch, whole rows, ...) -> the tokens that are here, as a view."""
        return rows.chunk(self.group.size(), dim=1)[self.group.rank()]

    def gather(self, keys_and_values: Tensor) -> Tensor:
        """(batch, tokens here, heads, 2, head_width) -> those of the whole rows; its gradient is summed and cut."""
        whole: Tensor = all_gather_single_autograd(keys_and_values.contiguous(), 1, self.group)
        return whole
