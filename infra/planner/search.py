"""Search of layouts: all factorizations of the devices that divide the network and its batch, ranked.

- `Candidate`: a layout with its memory and time; `search`: those that fit, and why the nearest others do not
- `best_layout`: the fastest that fits; `smallest_cluster`: on which one would; `reason`: why one does not
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import isqrt

from infra.planner.accelerators import GIB
from infra.planner.clusters import Cluster
from infra.planner.layouts import Layout, Recompute, Software
from infra.planner.memory import largest_part, least_bytes, memory_parts
from infra.planner.networks import Network
from infra.planner.step_time import step_seconds, step_time

MICRO_BATCHES = (1, 2, 4, 8, 16, 32, 64)
CONTEXTS = (1, 2, 4, 8, 16, 32, 64)
MIN_TOKENS_PER_RANK = 1_024
RECOMPUTES: tuple[Recompute, ...] = ("none", "full")
VIRTUALS = (1, 2, 4)
MAX_PIPELINE = 128
LEAST_USED = 8
"""Layouts use at least this part of the devices, one eighth: with fewer, the others would be idle for years."""
MAX_CLUSTER = 2**20
USUAL_NODE = 8
"""Devices of a node that a cluster of fewer grows to before it gets a second one."""


@dataclass(frozen=True)
class Candidate:
    """A layout with what it needs."""

    layout: Layout
    memory: dict[str, float]
    """Bytes of the fullest device by part."""
    seconds: dict[str, float]
    """Seconds of a step by part; empty if it does not fit."""

    @cached_property
    def step_seconds(self) -> float:
        """Time of a step."""
        return step_seconds(self.seconds)

    @cached_property
    def device_seconds(self) -> float:
        """Time of a step times devices, which money and energy are proportional to."""
        return self.step_seconds * self.layout.devices

    @cached_property
    def memory_bytes(self) -> float:
        """Memory of the fullest device."""
        return sum(self.memory.values())


def search(
    network: Network, cluster: Cluster, software: Software, rows: int
) -> tuple[list[Candidate], list[Candidate]]:
    """Layouts that fit, fastest first, and those that do not, least memory first.

    Args:
        network: sizes.
        cluster: the devices.
        software: the training system.
        rows: rows of the global batch.
    """
    fitting, others = [], []
    # If no layout uses enough of the devices, any number of them counts.
    for layout in [*layouts(network, cluster, rows)] or layouts(network, cluster, rows, cluster.devices):
        memory = memory_parts(network, layout, software, rows)
        if sum(memory.values()) > cluster.memory_bytes:
            others.append(Candidate(layout, memory, {}))
            continue
        fitting.append(Candidate(layout, memory, step_time(network, layout, cluster, software, rows)))
    fitting.sort(key=lambda candidate: (candidate.step_seconds, candidate.layout.devices))
    others.sort(key=lambda candidate: candidate.memory_bytes)
    return fitting, others


def best_layout(network: Network, cluster: Cluster, software: Software, rows: int) -> Layout | None:
    """The fastest of the layouts that fit and use the most devices; None if none fits."""
    fitting, _ = search(network, cluster, software, rows)
    return max(fitting, key=lambda candidate: candidate.layout.devices).layout if fitting else None


def smallest_cluster(network: Network, cluster: Cluster, software: Software, rows: int) -> int | None:
    """Devices of the smallest cluster of doubled size on which a layout fits; None if none does up to a million."""
    devices = cluster.devices
    while devices < MAX_CLUSTER:
        devices *= 2
        larger = cluster.model_copy(
            update={"devices": devices, "node_devices": max(cluster.node_devices, min(USUAL_NODE, devices))}
        )
        fitting = (
            layout.devices
            for layout in layouts(network, larger, rows)
            if least_bytes(network, layout, software) <= cluster.memory_bytes
            and sum(memory_parts(network, layout, software, rows).values()) <= cluster.memory_bytes
        )
        if (smallest := min(fitting, default=0)) > 0:
            return smallest
    return None


def reason(candidate: Candidate, cluster: Cluster) -> str:
    """Why a layout does not fit: what it needs, and its largest part."""
    part = largest_part(candidate.memory)
    return (
        f"needs {candidate.memory_bytes / GIB:.1f} of {cluster.memory_bytes / GIB:.1f} GiB; "
        f"{part} takes {candidate.memory[part] / GIB:.1f} GiB"
    )


def layouts(network: Network, cluster: Cluster, rows: int, least_used: int = LEAST_USED) -> Iterator[Layout]:
    """All layouts in which every factor divides what it splits, of at least 1 / `least_used` of the devices."""
    devices = cluster.devices
    tensors = [factor for factor in divisors(min(cluster.node_devices, devices)) if network.tensor_unit % factor == 0]
    pipelines = [
        factor for factor in divisors(network.layers) if factor <= (MAX_PIPELINE if network.splits_layers else 1)
    ]
    contexts = [
        factor
        for factor in CONTEXTS
        if factor == 1 or (network.context % factor == 0 and network.context // factor >= MIN_TOKENS_PER_RANK)
    ]
    batch = divisors(rows)
    for tensor, pipeline, context in product(tensors, pipelines, contexts):
        base = Layout(tensor=tensor, pipeline=pipeline, context=context)
        for ranks in batch:
            if devices <= least_used * base.devices * ranks <= least_used * devices:
                yield from _batch_layouts(network, cluster, rows, base, ranks)


def _batch_layouts(network: Network, cluster: Cluster, rows: int, base: Layout, ranks: int) -> Iterator[Layout]:
    """Layouts of a tensor, pipeline and context split whose batch is divided among `ranks`.

    Parameters are replicated on all ranks, sharded over all, or sharded within a node and replicated beyond it.
    """
    own = rows // ranks
    in_node = max(1, cluster.node_devices // (base.tensor * base.context))
    shards = sorted({1, ranks} | ({in_node} if ranks % in_node == 0 else set[int]()))
    experts = [factor for factor in divisors(ranks) if network.experts and network.experts % factor == 0] or [1]
    micros = [size for size in MICRO_BATCHES if own % size == 0]
    per_stage = network.layers // base.pipeline
    virtuals = [v for v in VIRTUALS if v == 1 or (base.pipeline > 1 and per_stage % v == 0)]
    for shard, expert, micro, recompute, virtual in product(shards, experts, micros, RECOMPUTES, virtuals):
        count = own // micro
        if base.pipeline > 1 and (count < base.pipeline if virtual == 1 else count % base.pipeline):
            continue
        yield Layout(
            data=ranks // shard, shard=shard, tensor=base.tensor, pipeline=base.pipeline, context=base.context,
            expert=expert, micro_batch=micro, recompute=recompute, virtual=virtual,
        )  # fmt: skip


def divisors(value: int) -> list[int]:
    """Divisors in ascending order."""
    small = [factor for factor in range(1, isqrt(value) + 1) if value % factor == 0]
    return sorted({*small, *(value // factor for factor in small)})
