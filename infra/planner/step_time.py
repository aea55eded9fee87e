"""Seconds of an optimizer step, by part.

- `Constants`, `FITTED`: seven numbers, fitted once on one block of published runs (docs/results/planner.md)
- `step_time`: seconds by part; `step_seconds`: their sum
- `traffic`: bytes that a device sends in a step, by kind

Products run at a share of the accelerator's sustained rate, element-wise operations at its memory's bandwidth, traffic
at a share of the links' bandwidth. Nothing is fitted per row, model or accelerator.
"""

from dataclasses import dataclass

from infra.planner.clusters import Cluster
from infra.planner.layouts import Layout, Software
from infra.planner.memory import parameters_per_device
from infra.planner.networks import Network
from infra.planner.own.traffic import own_collectives, own_traffic


@dataclass(frozen=True)
class Constants:
    """Numbers that no data sheet has."""

    product_share: float
    """Share of `sustained_flops` that a layer's products reach."""
    attention_share: float
    """Share of `attention_flops` that the attention kernels of a run reach."""
    elementwise_bytes: float
    """Read and written per token, layer and number of the width in a forward pass, without the feed-forward."""
    logit_traffic: float
    """Bytes read and written per token and entry of the vocabulary."""
    launch_seconds: float
    """Per layer and micro-batch, that no computation hides."""
    shard_overhead: float
    """Share of hidden traffic of shards that still costs time."""
    recompute_share: float
    """Share of a layer's products that full recomputation repeats if it stops early; two thirds, if counted."""


FITTED = Constants(
    product_share=0.879, attention_share=0.486, elementwise_bytes=68.2, logit_traffic=57.3, launch_seconds=1.35e-5,
    shard_overhead=0.92, recompute_share=0.404,
)  # fmt: skip
LINK_SHARE = 2 / 3
"""Share of a node's link bandwidth that collectives reach (nccl-tests: 230 of 300 on A100, 340 of 450 on H100)."""
NETWORK_SHARE = 0.9
PRECISION_SHARES = {"tf32": 1 / 2, "fp32": 1 / 16}
"""Rate of products over that of 16 bits, as on A100 and H100 (data sheets); other devices are near."""
FORWARD_BACKWARD = 3.0
ATTENTION_PASSES = 3.5
"""Forward and backward of fused attention, which computes the scores again (2307.08691)."""
FUSED_SHARE = 0.5
"""Share of the element-wise traffic that fused kernels have: 38 bytes counted, against 81 of single operations."""
SELECTIVE_SHARE = 0.4
"""Share of a layer's products that are computed again if every second one is kept."""
SCORE_TRAFFIC = 11.0
"""Bytes per score that a forward pass without fused attention reads and writes."""
OPTIMIZER_TRAFFIC = 28.0
"""Bytes read and written per parameter by AdamW: weight, gradient, two moments."""


def step_time(
    network: Network,
    layout: Layout,
    cluster: Cluster,
    software: Software,
    rows: int,
    constants: Constants = FITTED,
) -> dict[str, float]:
    """Seconds of a step: products, attention, elementwise, logits, recompute, launches, traffic by kind, bubble.

    Args:
        network: sizes and FLOPs.
        layout: factors, micro-batch and recomputation.
        cluster: rates.
        software: kernels and overlap.
        rows: rows of the global batch.
        constants: fitted numbers.
    """
    count = layout.micro_batches(rows)
    tokens = layout.micro_batch * network.context / layout.context
    compute = _micro_batch(network, layout, cluster, software, tokens, constants)
    bytes_by_kind = traffic(network, layout, software, rows)
    starts = _collectives(network, layout, software, rows) if cluster.collective_seconds else {}
    waiting = {
        kind: _seconds(kind, sent, layout, cluster) + cluster.collective_seconds * starts.get(kind, 0.0)
        for kind, sent in bytes_by_kind.items()
    }
    visible = 1 - software.hides_traffic
    parts = {name: seconds * count for name, seconds in compute.items()}
    shown = dict.fromkeys(waiting, visible) | ({"pipeline": 1.0} if _stalls(layout) else {})
    parts |= {kind: seconds * shown[kind] for kind, seconds in waiting.items() if kind != "shard"}
    parts["shard"] = _shard_seconds(waiting["shard"], sum(parts.values()), constants)
    parts["bubble"] = (layout.pipeline - 1) / layout.virtual * sum(compute.values())
    shards = layout.batch_ranks if software.sharded_optimizer else 1
    parameters = parameters_per_device(network, layout)
    parts["optimizer"] = parameters / shards * OPTIMIZER_TRAFFIC / cluster.memory_bandwidth
    return parts


def step_seconds(parts: dict[str, float]) -> float:
    """Sum of all parts."""
    return sum(parts.values())


def _stalls(layout: Layout) -> bool:
    """Whether a pipeline waits for transfers although they run beside computation.

    In 1F1B as many micro-batches are on their way as there are devices, and each needs its way there and back: the
    simulation (`infra.planner.schedules`) shows both as idle time, whatever else the devices compute.
    """
    return layout.virtual == 1 and not layout.all_in_flight


def _shard_seconds(traffic_seconds: float, computing: float, constants: Constants) -> float:
    """Seconds that are not hidden behind computation, and the cost of the hidden part."""
    hidden = min(traffic_seconds, computing)
    return traffic_seconds - hidden + constants.shard_overhead * hidden


def _micro_batch(
    network: Network, layout: Layout, cluster: Cluster, software: Software, tokens: float, constants: Constants
) -> dict[str, float]:
    """Seconds of a micro-batch on the slowest pipeline stage, forward and backward."""
    split = layout.tensor * layout.pipeline
    rate = cluster.sustained_flops * constants.product_share
    rate *= PRECISION_SHARES.get(software.precision, 1.0)
    layer_rate = rate * (cluster.fp8_flops / cluster.sustained_flops if _is_fp8(software, cluster) else 1)
    products = tokens * network.layer_flops / split / layer_rate
    attention = _attention(network, cluster, software, constants) * tokens / split
    elementwise = _elementwise_bytes(network, layout, software, constants) * tokens / cluster.memory_bandwidth
    entries = network.vocabulary * constants.logit_traffic * (FUSED_SHARE if software.fused else 1)
    head = FORWARD_BACKWARD * network.flops["head"] / rate + entries / cluster.memory_bandwidth
    return {
        "products": FORWARD_BACKWARD * products,
        "attention": (ATTENTION_PASSES if software.flash else FORWARD_BACKWARD) * attention,
        "elementwise": FORWARD_BACKWARD * elementwise,
        "logits": tokens * head / layout.tensor,
        "recompute": _recompute(layout, software, constants, products, attention, elementwise),
        "launches": constants.launch_seconds * network.layers / layout.pipeline,
    }


def _is_fp8(software: Software, cluster: Cluster) -> bool:
    return software.precision == "fp8" and cluster.fp8_flops > 0


def _attention(network: Network, cluster: Cluster, software: Software, constants: Constants) -> float:
    """Seconds per token of all layers' attention, forward."""
    if software.flash:
        computed = network.flops["scores"] * network.causal_share
        return computed / (cluster.attention_flops * constants.attention_share)
    scores = network.layers * network.heads * network.context
    rate = cluster.sustained_flops * constants.product_share
    return network.flops["scores"] / rate + SCORE_TRAFFIC * scores / cluster.memory_bandwidth


def _elementwise_bytes(network: Network, layout: Layout, software: Software, constants: Constants) -> float:
    """Bytes per token of the layers of a pipeline stage, forward; tensor parallelism splits the feed-forward's."""
    per_neuron = 10.0 if network.matrices == 3 else 4.0
    sequence = layout.tensor if software.sequence_parallel else max(1.0, min(2.0, layout.tensor))
    stream = constants.elementwise_bytes * network.width / sequence
    split = per_neuron * network.neurons / layout.tensor
    share = FUSED_SHARE if software.fused else 1.0
    return share * (stream + split) * network.layers / layout.pipeline


def _recompute(
    layout: Layout, software: Software, constants: Constants, products: float, attention: float, elementwise: float
) -> float:
    if layout.recompute == "none":
        return 0.0
    if layout.recompute == "selective":
        return SELECTIVE_SHARE * (products + elementwise) if software.flash else attention
    again = constants.recompute_share if software.early_stop else 1.0
    return products * again + attention + elementwise


def traffic(network: Network, layout: Layout, software: Software, rows: int) -> dict[str, float]:
    """Bytes that a device sends in a step by kind: tensor, context, expert, pipeline, shard, data.

    This project's training of its own networks is counted collective by collective (`infra.planner.own.traffic`), with
    a further kind, control: norms and losses.
    """
    if network.own is not None and software.own:
        return own_traffic(network.own, layout, software.precision, rows)
    count = layout.micro_batches(rows)
    tokens = layout.micro_batch * network.context / layout.context
    layers = network.layers / layout.pipeline
    passes = 3 if layout.recompute == "full" else 2
    hidden = 2.0 * tokens * network.width
    ring = {name: 2 * (getattr(layout, name) - 1) / getattr(layout, name) for name in ("tensor", "data", "shard")}
    gathered = 2.0 * tokens * 2 * network.key_value_width * (layout.context - 1) / layout.tensor
    exchanged = 2 * hidden * network.active_experts * (layout.expert - 1) / layout.expert
    stage = parameters_per_device(network, layout) * layout.shard
    gathers = 2 if layout.keeps_gathered else 3
    per_step = 1 if layout.pipeline > 1 and software.pipeline_keeps_gathered else count
    return {
        "tensor": count * layers * passes * 2 * ring["tensor"] * hidden,
        "context": count * layers * (passes + 1) * gathered,
        "expert": count * layers * network.expert_layers / network.layers * passes * exchanged,
        "pipeline": 0.0 if layout.pipeline == 1 else count * layout.virtual * 2 * hidden / layout.tensor,
        "shard": per_step * gathers * software.gather_bytes * stage * ring["shard"] / 2,
        "data": ring["data"] * parameters_per_device(network, layout) * _gradient_bytes(software),
    }


def _collectives(network: Network, layout: Layout, software: Software, rows: float) -> dict[str, float]:
    """Number of collectives by kind, of own training, the only one of which it is known."""
    if network.own is None or not software.own:
        return {}
    return own_collectives(network.own, layout, software.precision, int(rows))


def _gradient_bytes(software: Software) -> float:
    return (
        (software.gradient_bytes + software.gather_bytes) / 2 if software.sharded_optimizer else software.gradient_bytes
    )


def _seconds(kind: str, sent: float, layout: Layout, cluster: Cluster) -> float:
    """Seconds to send bytes of a kind over the slowest link on their way.

    Tensor ranks are neighbors, then context, shard (with expert), data and pipeline ranks.
    """
    inner = {"tensor": 1, "context": layout.tensor, "expert": layout.tensor * layout.context}
    inner["shard"] = layout.tensor * layout.context
    inner["data"] = inner["shard"] * layout.shard
    inner["pipeline"] = inner["data"] * layout.data
    inner["control"] = 1
    size = {"tensor": layout.tensor, "context": layout.context, "expert": layout.expert, "shard": layout.shard}
    size |= {"data": layout.data, "pipeline": layout.pipeline, "control": layout.devices}
    link = cluster.link_bandwidth * LINK_SHARE
    if inner[kind] * size[kind] <= cluster.node_devices:
        return sent / link
    # A ring crosses each node's border once, over the network devices of all its ranks in the node.
    in_node = max(1.0, cluster.node_devices / inner[kind]) if kind in ("shard", "data", "tensor") else 1.0
    return sent / min(link, cluster.network_bandwidth * NETWORK_SHARE * in_node)
