"""Which experts compute which tokens, and with what weight.

- `Router`: one matrix from token to experts, in float32
- `token_choice`, `expert_choice`: the two ways to route by its probabilities
- `balance_loss`, `z_loss`: what keeps the experts in use and the logits small
- `load_statistics`: how evenly the experts of each layer are used, for the log
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.experts.config import ExpertsConfig


class Routing(NamedTuple):
    """The assignments of tokens to experts, those of expert 0 first: all that bringing rows there and back needs.

    Sorted lists as in MegaBlocks (Gale et al. 2022, 2211.15841), and not GShard's one-hot tensors (tokens, experts,
    capacity), whose memory and products grow with the experts.
    """

    tokens: Tensor
    """(assignments,) int64, the row of each."""
    weights: Tensor
    """(assignments,) at least float32, the gate of each; the router learns through it."""
    counts: Tensor
    """(experts,) int64, assignments of each expert."""
    load: Tensor
    """(experts,) int64, assignments of each expert before the capacity took some away."""


class RoutingReport(NamedTuple):
    """What one layer's routing adds to the loss and says in the log. All but `loss` carry no gradient."""

    loss: Tensor
    """Scalar, weighted: to be added to the cross-entropy. 0 in evaluation."""
    load: Tensor
    """(experts,) int64, assignments of each expert before the capacity took some away."""
    dropped: Tensor
    """Scalar int64, assignments that the capacity took away."""
    unrouted: Tensor
    """Scalar int64, tokens that pass by all experts: every choice dropped, or chosen by no expert."""
    tokens: int
    """Rows that were routed."""
    entropy: Tensor
    """Scalar, mean over tokens of the router's entropy in nats; log(experts) at most."""


class Router(nn.Module):
    """softmax(W x) over the experts and the choice by it (Shazeer et al. 2017, 1701.06538, 2.1, without the noise).

    Product and softmax are in float32 under autocast too: rounding to bfloat16 before the exponential made training
    diverge (Switch, Fedus et al. 2021, 2101.03961, 2.4). The matrix is a parameter of this module, and no `nn.Linear`,
    so that what quantizes or prunes linear layers leaves it alone: it is small, and its errors send tokens elsewhere.

    In training the choice may look at other tokens: for the capacity (see `token_choice`) and in expert choice. In
    evaluation each token takes its likeliest `active` experts, whatever else is in the batch, and none is dropped:
    prediction is causal, the same with and without cache, and padding takes no token's place.
    """

    def __init__(self, width: int, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.experts, width))
        nn.init.normal_(self.weight, std=width**-0.5)
        self.share_load: Callable[[Tensor], Tensor] | None = None
        """Adds up the load of all processes in place, so that the balance loss is that of the whole batch."""

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
        """Whether a token's gates sum to 1: not where there is one, through which the router would not learn (Switch),
        and not after training in expert choice, whose gates are the bare probabilities.
        """
        return self.config.routing == "token_choice" and self.config.active > 1

    def _capacity(self, tokens: int, factor: float) -> int:
        """Most tokens of an expert: `factor` equal shares (Switch, equation 3), at least 1."""
        return math.ceil(factor * tokens * self.config.active / self.config.experts)

    def _loss(self, logits: Tensor, probabilities: Tensor, routing: Routing) -> Tensor:
        loss = self.config.router_z_loss * z_loss(logits)
        if self.config.routing == "token_choice":
            load = self.share_load(routing.load.clone()) if self.share_load else routing.load
            loss = loss + self.config.balance_loss * balance_loss(probabilities, load)
        return loss


def token_choice(probabilities: Tensor, active: int, normalized: bool, capacity: int | None = None) -> Routing:
    """Each token takes its likeliest experts.

    An expert over its capacity keeps first choices before second ones and, among equal choices, earlier rows before
    later (GShard, Lepikhin et al. 2020, 2006.16668, algorithm 1). Which tokens are dropped depends on the other
    sequences of the batch. With active = 1 it depends on no later token of the same sequence; with active >= 2 it does,
    as a later token's first choice displaces an earlier one's second. Without capacity a token's routing is its own.

    Args:
        probabilities: (tokens, experts).
        active: experts per token.
        normalized: divide a token's gates by their sum (GShard; Mixtral, Jiang et al. 2024, 2401.04088, 2.1), which
            they keep when one of them is dropped; otherwise the gates are the probabilities (Switch, equation 2).
        capacity: most tokens of an expert; None keeps all.
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
        places = torch.arange(len(order), device=order.device) - starts[queued[order]]
        order, counts = order[places < capacity], load.clamp_max(capacity)
    return Routing(order % tokens, gates.T.flatten()[order], counts, load)


def expert_choice(probabilities: Tensor, capacity: int) -> Routing:
    """Each expert takes the tokens that are likeliest to choose it (Zhou et al. 2022, 2202.09368, 3.2).

    The load is equal by construction, a token passes through any number of experts, and whether it does depends on
    later tokens: for training only. Of equal tokens, such as the first ones of documents in the first layer, the
    earlier are taken.

    Args:
        probabilities: (tokens, experts), summing to 1 over the experts; the gates.
        capacity: tokens of each expert; all tokens at most.
    """
    gates, order = probabilities.T.sort(descending=True, stable=True)
    counts = torch.full_like(order[:, 0], min(capacity, len(probabilities)))
    return Routing(order[:, :capacity].flatten(), gates[:, :capacity].flatten(), counts, counts)


def balance_loss(probabilities: Tensor, load: Tensor) -> Tensor:
    """E sum_e f_e P_e: 1 where load and probabilities are equal for all experts, E where one expert has both.

    f_e is the share of all assignments, first and further choices alike, as in DeepSeekMoE (Dai et al. 2024,
    2401.06066, equations 12 to 14), because each costs the expert as much; with one choice that is Switch's equation 4.
    P_e is the mean probability; the gradient comes through it.

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
    """How evenly the experts are used, for the training log.

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
