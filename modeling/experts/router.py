"""Routing of tokens to experts.

- `Router`: one matrix from token to experts, in float32
- `token_choice`, `expert_choice`: the two ways to route by its probabilities
- `balance_loss`, `z_loss`: losses that keep all experts in use and the logits small
- `load_statistics`: balance of the experts of each layer, for the log
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.experts.config import ExpertsConfig


class Routing(NamedTuple):
    """Assignments of tokens to experts, sorted by expert.

    Sorted lists as in MegaBlocks (Gale et al. 2022, 2211.15841), and not GShard's one-hot tensors (tokens, experts,
    capacity), whose memory and products grow with the experts.
    """

    tokens: Tensor
    """(assignments,) int64, row of each."""
    weights: Tensor
    """(assignments,) at least float32, gate of each, through which the router gets its gradient."""
    counts: Tensor
    """(experts,) int64, assignments of each expert."""
    load: Tensor
    """(experts,) int64, assignments of each expert before the capacity drops some."""


class RoutingReport(NamedTuple):
    """Loss and statistics of one layer's routing. Only `loss` has a gradient."""

    loss: Tensor
    """Scalar, weighted: to be added to the cross-entropy. 0 in evaluation."""
    load: Tensor
    """(experts,) int64, assignments of each expert before the capacity drops some."""
    dropped: Tensor
    """Scalar int64, assignments dropped by the capacity."""
    unrouted: Tensor
    """Scalar int64, tokens without expert: every choice dropped, or chosen by no expert."""
    tokens: int
    """Rows that were routed."""
    entropy: Tensor
    """Scalar, mean over tokens of the router's entropy in nats; log(experts) at most."""


class Router(nn.Module):
    """softmax(W x) over the experts, and routing by it (Shazeer et al. 2017, 1701.06538, 2.1, without the noise).

    Product and softmax are in float32 under autocast too: rounding to bfloat16 before the exponential made training
    diverge (Switch, Fedus et al. 2021, 2101.03961, 2.4). The matrix is a parameter of this module and not an
    `nn.Linear`, so that quantization and pruning of linear layers skip it: it is small, and its errors change the
    routing.

    In training, routing may depend on other tokens: by the capacity (see `token_choice`) and in expert choice. In
    evaluation each token is routed to its top-k experts, k = `active`, and none is dropped: prediction is causal, the
    same with and without cache, and padding displaces no token.
    """

    def __init__(self, width: int, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.experts, width))
        nn.init.normal_(self.weight, std=width**-0.5)
        self.share_load: Callable[[Tensor], Tensor] | None = None
        """Sums the load over all processes in place, so that the balance loss is that of the whole batch."""

    def forward(self, rows: Tensor) -> tuple[Routing, RoutingReport]:
        """(tokens, width) -> the routing of these rows."""
        logits = self.logits(rows)
        probabilities = logits.softmax(-1)
        routing = self._route(probabilities)
        report = RoutingReport(
            loss=self._loss(logits, probabilities, routing) if self.training else logits.new_zeros(()),
            load=routing.load,
            dropped=(routing.load - routing.counts).sum(),
            unrouted=_unrouted(routing, len(rows)),
            tokens=len(rows),
            entropy=torch.special.entr(probabilities.detach()).sum(-1).mean(),
        )
        return routing, report

    def logits(self, rows: Tensor) -> Tensor:
        """(tokens, width) -> (tokens, experts), float32, or float64 if the rows are."""
        dtype = torch.promote_types(rows.dtype, torch.float32)
        with torch.autocast(rows.device.type, enabled=False):
            return F.linear(rows.to(dtype), self.weight.to(dtype))

    def _route(self, probabilities: Tensor) -> Routing:
        config = self.config
        if not self.training:
            return token_choice(probabilities, config.active, self._normalized())
        if config.routing == "expert_choice":
            return expert_choice(probabilities, self._capacity(len(probabilities), config.capacity_factor or 1.0))
        factor = config.capacity_factor
        capacity = None if factor is None else self._capacity(len(probabilities), factor)
        return token_choice(probabilities, config.active, self._normalized(), capacity)

    def _normalized(self) -> bool:
        """Whether a token's gates sum to 1: not for a single gate, through which the router would get no gradient
        (Switch), and not after training in expert choice, whose gates are the plain probabilities.
        """
        return self.config.routing == "token_choice" and self.config.active > 1

    def _capacity(self, tokens: int, factor: float) -> int:
        """Limit of tokens per expert: `factor` equal shares (Switch, equation 3), at least 1."""
        return math.ceil(factor * tokens * self.config.active / self.config.experts)

    def _loss(self, logits: Tensor, probabilities: Tensor, routing: Routing) -> Tensor:
        loss = self.config.router_z_loss * z_loss(logits)
        if self.config.routing == "token_choice":
            load = self.share_load(routing.load.clone()) if self.share_load else routing.load
            loss = loss + self.config.balance_loss * balance_loss(probabilities, load)
        return loss


def token_choice(probabilities: Tensor, active: int, normalized: bool, capacity: int | None = None) -> Routing:
    """Route each token to its top-k experts.

    An expert over its capacity keeps first choices before second ones and, among equal choices, earlier rows before
    later (GShard, Lepikhin et al. 2020, 2006.16668, algorithm 1). The dropped tokens depend on the other sequences of
    the batch. With active = 1 they depend on no later token of the same sequence; with active >= 2 they do, as a later
    token's first choice displaces an earlier one's second. Without capacity, tokens are routed independently.

    Args:
        probabilities: (tokens, experts).
        active: experts per token.
        normalized: divide a token's gates by their sum (GShard; Mixtral, Jiang et al. 2024, 2401.04088, 2.1), which
            they keep when one of them is dropped; otherwise the gates are the probabilities (Switch, equation 2).
        capacity: limit of tokens per expert; None for no limit.
    """
    tokens, experts = probabilities.shape
    gates, chosen = probabilities.topk(active)
    if normalized:
        gates = gates / gates.sum(-1, keepdim=True)
    # All first choices, then all second ones: sorting by expert then leaves each expert's queue in order of priority.
    queued = chosen.T.flatten()
    order = queued.argsort(stable=True)
    load = torch.bincount(queued, minlength=experts)
    counts = load
    if capacity is not None:
        starts = load.cumsum(0) - load
        ranks = torch.arange(len(order), device=order.device) - starts[queued[order]]
        order, counts = order[ranks < capacity], load.clamp_max(capacity)
    return Routing(order % tokens, gates.T.flatten()[order], counts, load)


def expert_choice(probabilities: Tensor, capacity: int) -> Routing:
    """Route to each expert its top-k tokens, k = `capacity` (Zhou et al. 2022, 2202.09368, 3.2).

    The load is equal by construction. A token passes through any number of experts, which depends on later tokens: for
    training only. Of equal tokens, such as the first ones of documents in the first layer, the earlier are chosen.

    Args:
        probabilities: (tokens, experts), summing to 1 over the experts; the gates.
        capacity: tokens of each expert, at most all tokens.
    """
    gates, order = probabilities.T.sort(descending=True, stable=True)
    counts = torch.full_like(order[:, 0], min(capacity, len(probabilities)))
    return Routing(order[:, :capacity].flatten(), gates[:, :capacity].flatten(), counts, counts)


def balance_loss(probabilities: Tensor, load: Tensor) -> Tensor:
    """E sum_e f_e P_e: 1 if load and probabilities are equal for all experts, E if one expert has all.

    f_e is the share of all assignments, first and further choices alike, as in DeepSeekMoE (Dai et al. 2024,
    2401.06066, equations 12 to 14), because each costs the expert as much; with one choice that is Switch's equation 4.
    P_e is the mean probability, which has the gradient.

    Args:
        probabilities: (tokens, experts).
        load: (experts,) int64, assignments before any is dropped.
    """
    shares = load.to(probabilities.dtype) / load.sum()
    return len(load) * (shares * probabilities.mean(0)).sum()


def z_loss(logits: Tensor) -> Tensor:
    """Mean over tokens of logsumexp(logits)^2 (ST-MoE, Zoph et al. 2022, 2202.08906, equation 5)."""
    return logits.logsumexp(-1).square().mean()


def load_statistics(reports: Sequence[RoutingReport]) -> dict[str, list[float] | list[list[float]]]:
    """Balance of the experts, for the training log.

    Args:
        reports: of the layers that have experts, in their order.

    Returns:
        One entry per layer in each of: `expert_share`, each expert's share of the assignments; `expert_imbalance`, the
        largest share over the mean one; `dropped_share` of the assignments; `unrouted_share` of the tokens;
        `router_entropy` in nats.
    """
    shares = [(report.load / report.load.sum()).tolist() for report in reports]
    return {
        "expert_share": shares,
        "expert_imbalance": [max(share) * len(share) for share in shares],
        "dropped_share": [float(report.dropped / report.load.sum()) for report in reports],
        "unrouted_share": [float(report.unrouted / report.tokens) for report in reports],
        "router_entropy": [float(report.entropy) for report in reports],
    }


def _unrouted(routing: Routing, tokens: int) -> Tensor:
    return routing.tokens.new_ones(tokens).index_fill(0, routing.tokens, 0).sum()
