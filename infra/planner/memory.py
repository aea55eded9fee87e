"""Memory of the fullest device, by part.

- `memory_parts`: bytes by part; `largest_part`: the part to name if it does not fit. This project's training of its own
  networks is counted tensor by tensor (`infra.planner.own.memory`), all others by the formulas below
- `layer_activation_bytes`: what a layer keeps for its backward pass, per token
"""

from infra.planner.layouts import Layout, Recompute, Software
from infra.planner.networks import Network
from infra.planner.own.memory import TrainingState, least_memory, own_memory_parts

MARGIN_SHARE = 0.04
"""The allocator's share: blocks that are reserved but not used."""
CONTEXT_BYTES = 1.0e9
"""Memory of the driver, kernels and communicators."""
GATHERED_LAYERS = 2
"""Layers whose shards are gathered at once: the current one and the next."""


def memory_parts(network: Network, layout: Layout, software: Software, rows: int) -> dict[str, float]:
    """Bytes on the fullest device: weights, gradients, optimizer, gathered, activations, working, logits, margin.

    With a pipeline the first stage holds most activations and the last one the logits; the larger of both counts.

    Args:
        network: sizes.
        layout: factors; its micro-batch decides the activations.
        software: bytes per parameter and kernels.
        rows: rows of the global batch.
    """
    parts = _own_parts(network, layout, software, rows) or _general_parts(network, layout, software, rows)
    parts["margin"] = MARGIN_SHARE * sum(parts.values()) + CONTEXT_BYTES
    return parts


def _own_parts(network: Network, layout: Layout, software: Software, rows: int) -> dict[str, float]:
    if network.own is None or not software.own:
        return {}
    state = TrainingState(software.optimizer_bytes, software.average_bytes)
    return own_memory_parts(network.own, layout, software.precision, rows, state)


def least_bytes(network: Network, layout: Layout, software: Software) -> float:
    """A lower bound of the memory that is computed fast; 0 if none is known."""
    if network.own is None or not software.own:
        return 0.0
    return least_memory(network.own, layout, TrainingState(software.optimizer_bytes, software.average_bytes))


def _general_parts(network: Network, layout: Layout, software: Software, rows: int) -> dict[str, float]:
    held = parameters_per_device(network, layout) / (layout.context if software.shards_over_context else 1)
    replicas = layout.data * layout.shard if software.sharded_optimizer else 1
    state = {
        "weights": held * software.weight_bytes,
        "gradients": held * software.gradient_bytes,
        "optimizer": held * software.optimizer_bytes / replicas,
        "gathered": _gathered(network, layout, software),
    }
    tokens = layout.micro_batch * network.context / layout.context
    layer = layer_activation_bytes(network, layout, software, layout.recompute) * tokens
    per_stage = network.layers / layout.pipeline
    first = layer * per_stage * layout.in_flight(rows)
    work = _working_bytes(network, layout, software) * tokens
    logits = min(tokens, software.logit_rows) * network.vocabulary * software.logit_bytes / layout.tensor
    last = layer * per_stage + logits
    activations = {"activations": first, "working": work, "logits": 0.0}
    if layout.pipeline == 1 or last > first:
        activations = {"activations": layer * per_stage, "working": work, "logits": logits}
    return {**state, **activations}


def parameters_per_device(network: Network, layout: Layout) -> float:
    """Parameters of the fullest pipeline stage's device, shards taken into account."""
    parts = network.parameters
    stage = (parts["dense"] / layout.pipeline + _edge_parameters(network, layout)) / layout.tensor / layout.shard
    split = layout.expert if layout.expert > 1 else layout.shard
    return stage + parts["experts"] / layout.pipeline / layout.tensor / split


def _edge_parameters(network: Network, layout: Layout) -> float:
    """Embedding and head of the fuller end of the pipeline; of both without one."""
    embedding, head = network.parameters["embedding"], network.parameters["head"]
    return embedding + head if layout.pipeline == 1 else max(embedding, head)


def _gathered(network: Network, layout: Layout, software: Software) -> float:
    """Whole parameters and gradients that shards are gathered into."""
    shards = layout.shard * (layout.context if software.shards_over_context else 1)
    if shards == 1:
        return 0.0
    stage_layers = network.layers / layout.pipeline
    experts = network.parameters["experts"] if layout.expert == 1 else 0
    layer = (network.parameters["dense"] + experts) / network.layers / layout.tensor
    in_pipeline = layout.pipeline > 1 and software.pipeline_keeps_gathered
    if in_pipeline or layout.keeps_gathered:
        whole = layer * stage_layers + _edge_parameters(network, layout) / layout.tensor
        gradients = software.gradient_bytes if in_pipeline else 0
        return whole * (software.gather_bytes + gradients)
    edge = _edge_parameters(network, layout) / layout.tensor
    return (GATHERED_LAYERS * layer + edge) * 2 * software.gather_bytes


def layer_activation_bytes(network: Network, layout: Layout, software: Software, recompute: Recompute) -> float:
    """Bytes per token that a layer keeps for its backward pass on one device.

    Without dropout and stored scores, two norms, a biased feed-forward of 4 x width: 32 bytes per number of the width
    (Korthikanti et al. 2022, 2205.05198, section 4, has 34 with dropout masks, and 5 x heads x tokens for the scores).
    """
    whole, split = _kept_bytes(network, software)
    scores = _score_bytes(network, software)
    sequence = layout.tensor if software.sequence_parallel else 1
    if recompute == "full":
        return software.hidden_bytes * network.width / sequence
    if recompute == "selective" and software.flash:
        return (whole / sequence + split / layout.tensor) / 2
    if recompute == "selective":
        scores = 0.0
    return whole / sequence + (split + scores) / layout.tensor


def _kept_bytes(network: Network, software: Software) -> tuple[float, float]:
    """(bytes that tensor parallelism does not split, bytes that it does), per token and layer."""
    width, hidden = network.width, software.hidden_bytes
    whole = 2 * hidden * width + 4 * width + (2 * width if software.dropout_masks else 0)
    attention = 2 * (width + 2 * network.key_value_width) + 2 * width
    gated, plain = 3 if software.fused else 4, 1 if network.output_only_activation else 2
    return whole, attention + 2 * (gated if network.matrices == 3 else plain) * network.neurons


def _score_bytes(network: Network, software: Software) -> float:
    """Bytes of stored scores: softmax, its dropout mask and the dropped-out copy, 2 + 1 + 2 bytes each."""
    return 0.0 if software.flash else 5.0 * network.heads * network.context


def _working_bytes(network: Network, layout: Layout, software: Software) -> float:
    """Bytes per token of the layer whose backward pass runs: recomputed tensors and their gradients."""
    nothing_kept = layout.recompute == "full"
    kept = layer_activation_bytes(network, layout, software, "none")
    gradients = 2 * (network.width + max(network.neurons, 3 * network.width) / layout.tensor) * 2
    gathered = 2 * 2 * network.width if software.sequence_parallel and layout.tensor > 1 else 0
    return (kept if nothing_kept else 0) + gradients + gathered


def largest_part(parts: dict[str, float]) -> str:
    """Name of the part with the most bytes."""
    return max(parts, key=lambda name: parts[name])
