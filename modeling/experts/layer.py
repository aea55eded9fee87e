"""A mixture of experts in place of a feed-forward.

- `Experts`: router, experts and the shared expert
- `Exchange`: moves rows to the experts and back
- `LocalExchange`: for experts on this process; `modeling.experts.all_to_all` is for several processes
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from modeling.experts.config import ExpertsConfig
from modeling.experts.router import Router, Routing, RoutingReport
from modeling.feed_forward import FeedForward


class Exchange(Protocol):
    """Exchange of one layer's rows with their experts; created for each forward pass."""

    def dispatch(self) -> Sequence[Tensor]:
        """Rows (assignments of the expert, width) of each expert of this process."""

    def combine(self, outputs: Sequence[Tensor]) -> Tensor:
        """Each expert's outputs, in the order of `dispatch` -> (tokens, width), their weighted sum for each token."""


class LocalExchange:
    """Exchange with experts on this process: a gather and a scatter, both differentiable."""

    def __init__(self, rows: Tensor, routing: Routing) -> None:
        self.rows = rows
        self.routing = routing

    def dispatch(self) -> Sequence[Tensor]:
        """Views of one tensor (assignments, width) sorted by expert; without rows for an expert without tokens."""
        return torch.split(self.rows.index_select(0, self.routing.tokens), self.routing.counts.tolist())

    def combine(self, outputs: Sequence[Tensor]) -> Tensor:
        """Sum in the gates' dtype, float32 or more; the result has the outputs' dtype.

        The result of a token without expert is 0. With up to two experts per token the sum is bitwise deterministic,
        also on CUDA, where `index_add` adds in any order.
        """
        # Rows of skipped experts have the input's dtype, which would change that of the outputs.
        sorted_outputs = torch.cat([part for part in outputs if len(part) or part.requires_grad])
        weighted = sorted_outputs * self.routing.weights[:, None]
        total = weighted.new_zeros(self.rows.shape).index_add(0, self.routing.tokens, weighted)
        return total.to(sorted_outputs.dtype)


class Experts(nn.Module):
    """FF_shared(x) + sum over the chosen experts of gate_e FF_e(x) (Shazeer et al. 2017, 1701.06538, 2; DeepSeekMoE).

    Each expert is a `FeedForward` and runs on its tokens without padding. In training, experts without tokens run too:
    their gradients are then zero and not missing, as data parallelism requires.
    """

    def __init__(self, width: int, feed_forward_width: int, config: ExpertsConfig) -> None:
        """Build with random weights.

        Args:
            width: numbers per token.
            feed_forward_width: neurons of each expert, unless the config sets `expert_width`.
            config: number of experts, their widths and the routing.
        """
        super().__init__()
        neurons = config.expert_width or feed_forward_width
        self.router = Router(width, config)
        self.experts: nn.ModuleList | nn.ModuleDict = nn.ModuleList(
            FeedForward(width, neurons) for _ in range(config.experts)
        )
        self.shared = FeedForward(width, config.shared_width) if config.shared_width else None
        self.exchange: Callable[[Tensor, Routing], Exchange] = LocalExchange

    def forward(self, hidden: Tensor) -> tuple[Tensor, RoutingReport]:
        """Pass each token through its experts.

        Args:
            hidden: (batch, tokens, width), normed. If the routing compares tokens, it does so over the whole batch.

        Returns:
            (batch, tokens, width), to be added to the residual stream, and the report, whose loss is to be added to
            the cross-entropy.
        """
        rows = hidden.flatten(0, 1)
        routing, report = self.router(rows)
        exchange = self.exchange(rows, routing)
        outputs = [
            expert(own) if len(own) or torch.is_grad_enabled() else own
            for expert, own in zip(self.experts.children(), exchange.dispatch(), strict=True)
        ]
        mixed = exchange.combine(outputs).view(hidden.shape)
        if self.shared is not None:
            mixed = mixed + self.shared(hidden)
        return mixed, report
