"""Several optimizers, each over parameters of its own, that look like one."""

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch.optim import Optimizer


class CombinedOptimizer(Optimizer):
    """Steps its parts in turn.

    `param_groups` and `state` are those of the parts, the same objects and not copies: what is set or written in either
    place acts in both. The order of the parameters is that of the parts.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        """Combine optimizers that have not taken a step, none with a parameter of another.

        Raises:
            ValueError: where two share a parameter, or there is none.
        """
        self.parts = list(parts)
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in `Optimizer`."""
        super().load_state_dict(state_dict)
        self._share()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Step each part; the closure, if there is one, is called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def _share(self) -> None:
        """Give the parts this one's groups and state, as loading makes new ones."""
        first = 0
        for part in self.parts:
            end = first + len(part.param_groups)
            part.param_groups, part.state, first = self.param_groups[first:end], self.state, end
