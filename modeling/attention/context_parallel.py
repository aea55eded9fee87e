"""Context parallelism: several processes share the tokens of each row, each with a contiguous part of them.

Queries stay on their process; keys and values are gathered, as Llama 3 does (Grattafiori et al. 2024, 2407.21783,
3.3.2). torch's own context parallelism passes keys and values around a ring of CUDA kernels, for full attention only.
"""

from torch import Tensor
from torch.distributed import ProcessGroup


class TokenShare:
    """This process's part of each row's tokens, by its rank in a process group."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group

    def first(self, tokens: int) -> int:
        """Position in the row of the first of this process's `tokens`."""
        return self.group.rank() * tokens

    def cut(self, rows: Tensor) -> Tensor:
        """(batch, whole rows, ...) -> this process's tokens, as a view."""
        return rows.chunk(self.group.size(), dim=1)[self.group.rank()]

    def gather(self, keys_and_values: Tensor) -> Tensor:
        """(batch, own tokens, heads, 2, head_width) -> those of the whole rows; the gradient is summed and cut."""
        from torch.distributed._functional_collectives import all_gather_single_autograd

        whole: Tensor = all_gather_single_autograd(keys_and_values.contiguous(), 1, self.group)
        return whole
