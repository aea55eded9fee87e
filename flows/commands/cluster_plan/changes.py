"""Changes of the cluster: the search repeated with one figure changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flows.commands.cluster_plan.plan import ClusterPlan
from infra.planner.clusters import Cluster
from infra.planner.run_costs import RunCosts, run_costs
from infra.planner.search import Candidate, search

CHANGES: tuple[tuple[str, dict[str, float]], ...] = (
    ("network between nodes twice as fast", {"network_bandwidth": 2}),
    ("network between nodes half as fast", {"network_bandwidth": 0.5}),
    ("network between nodes a tenth as fast", {"network_bandwidth": 0.1}),
    ("links in the node half as fast", {"link_bandwidth": 0.5}),
    ("devices with twice the memory", {"memory_bytes": 2}),
    ("devices with half the memory", {"memory_bytes": 0.5}),
    ("devices that multiply half as fast", {"peak_flops": 0.5, "sustained_flops": 0.5, "attention_flops": 0.5}),
    ("twice as many devices", {"devices": 2}),
    ("half as many devices", {"devices": 0.5}),
    ("failures four times as frequent", {"mtbf_hours": 0.25}),
)
"""(name, figure of the cluster -> factor)."""


@dataclass(frozen=True)
class Change:
    """The fastest layout of a changed cluster."""

    name: str
    best: Candidate | None
    """None if nothing fits."""
    costs: RunCosts | None


def changes(plan: ClusterPlan) -> Iterator[Change]:
    """Every change of `CHANGES`, with what would be the fastest layout then."""
    for name, factors in CHANGES:
        cluster = _changed(plan.cluster, factors)
        fitting, _ = search(plan.network, cluster, plan.software, plan.rows)
        if not fitting:
            yield Change(name, None, None)
            continue
        best, batch = fitting[0], plan.rows * plan.network.context
        costs = run_costs(plan.network, cluster, best.layout.devices, best.step_seconds, batch, plan.tokens)
        yield Change(name, best, costs)


def _changed(cluster: Cluster, factors: dict[str, float]) -> Cluster:
    values: dict[str, Any] = {name: getattr(cluster, name) * factor for name, factor in factors.items()}
    if "devices" in values:
        values["devices"] = max(1, int(values["devices"]))
        values["node_devices"] = min(cluster.node_devices, values["devices"])
    return cluster.model_copy(update=values)
