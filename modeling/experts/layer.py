"""A mixture of experts in place of a feed-forward.

- `Experts`: router, experts and the shared expert
- `Exchange`: how rows get to the experts and back; the all-to-all of expert parallelism is another one
- `LocalExchange`: to experts that are all in this process
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from modeling.experts.config import ExpertsConfig
from modeling.experts.router import Router, Routing, RoutingReport
from modeling.feed_forward import FeedForward


class Exchange(Protocol):
    """The way of one layer's rows to their experts and back; made anew for each forward pass."""

    def dispatch(self) -> Sequence[Tensor]:
        """The rows (assignments of the expert, width) of each expert that this process holds."""

    def combine(self, outputs: Sequence[Tensor]) -> Tensor:
        """Each expert's outputs, in the order of `dispatch` -> (tokens, width), their weighted sum for each token."""


class LocalExchange:
    """To experts that are all in this process: a gather and a scatter, both differentiable."""

    def __init__(self, rows: Tensor, routing: Routing) -> None:
        self.rows = rows
        self.routing = routing

    def dispatch(self) -> Sequence[Tensor]:
        """Views of one tensor (assignments, width) sorted by expert; that of an expert without tokens has no rows."""
        return torch.split(self.rows.index_select(0, self.routing.tokens), self.routing.counts.tolist())

    def combine(self, outputs: Sequence[Tensor]) -> Tensor:
        """Sum in the gates' dtype, float32 or more; the result has the outputs' dtype.

        A token without expert gets 0. Up to two experts per token the sum has the same bits in any order of adding, so
        also on CUDA, where `index_add` takes any.
        """
        # Rows that no expert ran on have the dtype of the input and would spoil the outputs' one.
        sorted_outputs = torch.cat([part for part in outputs if len(part) or part.requires_grad])
        weighted = sorted_outputs * self.routing.weights[:, None]
        total = weighted.new_zeros(self.rows.shape).index_add(0, self.routing.tokens, weighted)
        return total.to(sorted_outputs.dtype)


class Experts(nn.Module):
    """FF_shared(x) + sum over the chosen experts of gate_e FF_e(x) (Shazeer et al. 2017, 1701.06538, 2; DeepSeekMoE).

    Each expert is a `FeedForward` of its own and runs on the tokens that it gets, many or none, so that nothing is
    padded. In training one without tokens runs too: its gradients are then zero and not missing, as data parallelism
    needs them.
    """

    def __init__(self, width: int, feed_forward_width: int, config: ExpertsConfig) -> None:
        """Build with random weights.

        Args:
            width: numbers per token.
            feed_forward_width: neurons of each expert where the config does not say.
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
            hidden: (batch, tokens, width), normed. Where the routing compares tokens, it does so over the whole batch.

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
