"""Bytes that a device of this project's training sends in a step, collective by collective.

- `own_traffic`: by kind, on the device that sends most; `device_traffic`: on a device by its rank in the pipeline

Ring algorithms: an all-reduce over n devices sends 2 (n - 1) / n of its tensor, an all-gather or reduce-scatter half of
that. Exact (docs/results/planner.md), but for what depends on the data: experts are assumed to be chosen equally often.
"""

from collections.abc import Iterator

from infra.planner.layouts import Layout, Precision
from infra.planner.own.experts import assigned_rows
from infra.planner.own.parameters import (
    OwnNetwork,
    edge_unit,
    layer_units,
    replicas_of,
    shards_of,
    table_parameters,
)
from modeling.experts.config import ExpertsConfig

KINDS = ("tensor", "context", "expert", "pipeline", "shard", "data", "control")
"""control: norms, losses and flags, a few bytes each."""
FLOAT, INTEGER, DOUBLE = 4, 8, 8
ROW_SUMS = 3 * FLOAT
"""Per token of the vocabulary-parallel loss: maximum, the target's logit, sum of exponentials."""


def own_traffic(network: OwnNetwork, layout: Layout, precision: Precision, rows: int) -> dict[str, float]:
    """Bytes by kind, each on the device that sends most of it.

    Args:
        network: sizes.
        layout: its micro-batch divides the rows of a device.
        precision: of matrix products.
        rows: rows of the global batch.
    """
    stages = {0, min(1, layout.pipeline - 1), layout.pipeline - 1}
    sent = [device_traffic(network, layout, precision, rows, stage) for stage in sorted(stages)]
    return {kind: max(device[kind] for device in sent) for kind in KINDS}


def device_traffic(
    network: OwnNetwork, layout: Layout, precision: Precision, rows: int, stage: int
) -> dict[str, float]:
    """As `own_traffic`, on the devices of a pipeline rank, counted from 0."""
    device = _Device(network, layout, precision, rows, stage)
    sent = dict.fromkeys(KINDS, 0.0)
    for part in (device.layers(), device.edges(), device.pipeline(), device.parameters(), device.control()):
        for kind, number in part:
            sent[kind] += number
    return sent


def all_reduce(devices: int) -> float:
    """Bytes that a device sends per byte of a sum over all."""
    return 2 * (devices - 1) / devices


class _Device:
    """A device; each method yields (kind, bytes of a step)."""

    def __init__(self, network: OwnNetwork, layout: Layout, precision: Precision, rows: int, stage: int) -> None:
        self.network, self.config, self.layout, self.stage = network, network.config, layout, stage
        self.count = layout.micro_batches(rows)
        self.tokens = layout.micro_batch * self.config.context_length / layout.context
        self.hidden = self.tokens * self.config.width
        self.output = 2 if precision in ("bf16", "fp16") else FLOAT
        """Bytes per number that a matrix product returns."""
        self.again = layout.recompute == "full"
        self.is_first, self.is_last = stage == 0, stage == layout.pipeline - 1
        self.layer_counts = network.stage_layers(layout.pipeline, layout.virtual, stage)

    def layers(self) -> Iterator[tuple[str, float]]:
        for layer, layers in self.layer_counts:
            experts, passes = self.config.layer_experts(layer), layers * self.count
            yield "tensor", passes * all_reduce(self.layout.tensor) * self._tensor(experts)
            yield "context", passes * self._context()
            if experts is not None:
                yield "expert", passes * self._exchange(experts)
                for kind, sent in self._router(experts):
                    yield kind, passes * sent

    def _tensor(self, experts: ExpertsConfig | None) -> float:
        """Outputs of split matrices forward, and once more if recomputed; gradients of their inputs backward.

        Recomputation ends before a feed-forward's last product, but after the experts, whose outputs are weighted.
        """
        outputs, inputs = self.hidden * (2 if self.again else 1), self.hidden
        if experts is None or experts.shared_width:
            outputs, inputs = outputs + self.hidden, inputs + self.hidden
        if experts is not None:
            assigned = assigned_rows(experts, self.tokens) * self.config.width
            outputs, inputs = outputs + assigned * (2 if self.again else 1), inputs + assigned
        return outputs * self.output + inputs * FLOAT

    def _context(self) -> float:
        """Keys and values are gathered, and their gradients scattered."""
        own = 2 * self.hidden / self.layout.tensor * self.output
        return (3 if self.again else 2) * (self.layout.context - 1) * own

    def _exchange(self, experts: ExpertsConfig) -> float:
        """Rows sent to their experts, as normed, and back, as multiplied; the gradients; numbers of rows."""
        sent = (self.layout.expert - 1) / self.layout.expert
        there = assigned_rows(experts, self.tokens) * self.config.width * (FLOAT + self.output)
        return sent * ((3 if self.again else 2) * there + (2 if self.again else 1) * INTEGER * experts.experts)

    def _router(self, experts: ExpertsConfig) -> Iterator[tuple[str, float]]:
        """Loads of the experts, for the balance of the whole batch."""
        if experts.routing == "token_choice":
            times = (2 if self.again else 1) * INTEGER * experts.experts
            for kind in ("data", "shard", "context"):
                yield kind, times * all_reduce(getattr(self.layout, kind))

    def edges(self) -> Iterator[tuple[str, float]]:
        each = all_reduce(self.layout.tensor) * self.count
        if self.is_first:
            yield "tensor", each * self.hidden * FLOAT
        if self.is_last:
            yield "tensor", each * (self.hidden * FLOAT + self.tokens * ROW_SUMS)

    def pipeline(self) -> Iterator[tuple[str, float]]:
        layout = self.layout
        if layout.pipeline > 1:
            sends = 2 * layout.virtual - self.is_first - self.is_last
            yield "pipeline", self.count * sends * self.hidden * FLOAT
            if self.config.tied_embeddings and (self.is_first or self.is_last):
                yield "pipeline", all_reduce(2) * FLOAT * table_parameters(self.config, layout)

    def parameters(self) -> Iterator[tuple[str, float]]:
        """Shards are gathered for each pass, and reduced once per step; replicas sum once per step.

        A pipeline keeps the layers of a backward pass for the next pass: it gathers them once per micro-batch and once
        more. What is outside the layers is kept between forward and backward pass.
        """
        layout, shards = self.layout, shards_of(self.layout)
        units = layer_units(self.network, layout, self.stage)
        edge = edge_unit(self.network, layout.tensor, shards, self.is_first, self.is_last)
        gathers = (self.count + 1, 1) if layout.pipeline > 1 else (2 * self.count, self.count)
        padded = sum(count * unit.padded for unit, count in units)
        received = (gathers[0] + 1) * padded + (gathers[1] + 1) * edge.padded
        yield "shard", all_reduce(shards) / 2 * FLOAT * received
        yield "data", all_reduce(replicas_of(layout)) * FLOAT * (padded + edge.padded) / shards
        holders = layout.data * layout.shard * layout.context // layout.expert
        yield "data", all_reduce(holders) * FLOAT * sum(count * unit.experts for unit, count in units)

    def control(self) -> Iterator[tuple[str, float]]:
        """The gradient's norm by the devices that split its parts; the loss; whether to stop."""
        layout = self.layout
        shards, tensor = all_reduce(shards_of(layout)), all_reduce(layout.tensor)
        parts = 2 if layout.tensor > 1 else 1
        yield "control", DOUBLE * (parts * shards + tensor)
        has_experts = any(self.config.layer_experts(layer) for layer, _ in self.layer_counts)
        if layout.expert > 1 and has_experts:
            yield "control", DOUBLE * (parts * all_reduce(layout.expert) + tensor)
        yield "control", (DOUBLE + FLOAT) * all_reduce(layout.pipeline) + 2 * DOUBLE * all_reduce(layout.devices)
