"""Traffic of a device of this project's training in a step, collective by collective.

- `own_traffic`: bytes by kind, on the device that sends most; `device_traffic`: on a device by its rank in the pipeline
- `own_collectives`, `device_collectives`: number of collectives by kind, likewise

Ring algorithms: an all-reduce over n devices sends 2 (n - 1) / n of its tensor, an all-gather or reduce-scatter half of
that. Exact (docs/results/planner.md), but for what depends on the data: experts are assumed to be chosen equally often.
"""

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

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
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20
"""Bytes of gradients that DistributedDataParallel sums at once."""
ROW_SUMS = 3 * FLOAT
"""Per token of the vocabulary-parallel loss: maximum, the target's logit, sum of exponentials."""


class Sent(NamedTuple):
    """Equal parts of a step's traffic."""

    kind: str
    bytes: float
    """Sum over the collectives; if 0, there are none: nothing is split."""
    collectives: float


def own_traffic(network: OwnNetwork, layout: Layout, precision: Precision, rows: int) -> dict[str, float]:
    """Bytes by kind, each on the device that sends most of it.

    Args:
        network: sizes.
        layout: its micro-batch divides the rows of a device.
        precision: of matrix products.
        rows: rows of the global batch.
    """
    sent = [device_traffic(network, layout, precision, rows, stage) for stage in _unlike_stages(layout)]
    return {kind: max(device[kind] for device in sent) for kind in KINDS}


def own_collectives(network: OwnNetwork, layout: Layout, precision: Precision, rows: int) -> dict[str, float]:
    """As `own_traffic`, but the number of collectives."""
    counts = [device_collectives(network, layout, precision, rows, stage) for stage in _unlike_stages(layout)]
    return {kind: max(device[kind] for device in counts) for kind in KINDS}


def _unlike_stages(layout: Layout) -> list[int]:
    return sorted({0, min(1, layout.pipeline - 1), layout.pipeline - 1})


def device_traffic(
    network: OwnNetwork, layout: Layout, precision: Precision, rows: int, stage: int
) -> dict[str, float]:
    """As `own_traffic`, on the devices of a pipeline rank, counted from 0."""
    sent = dict.fromkeys(KINDS, 0.0)
    for part in _Device(network, layout, precision, rows, stage).parts():
        sent[part.kind] += part.bytes
    return sent


def device_collectives(
    network: OwnNetwork, layout: Layout, precision: Precision, rows: int, stage: int
) -> dict[str, float]:
    """As `own_collectives`, on the devices of a pipeline rank."""
    counts = dict.fromkeys(KINDS, 0.0)
    for part in _Device(network, layout, precision, rows, stage).parts():
        counts[part.kind] += part.collectives if part.bytes else 0
    return counts


def all_reduce(devices: int) -> float:
    """Bytes that a device sends per byte of a sum over all."""
    return 2 * (devices - 1) / devices


class _Device:
    """A device; its methods yield what it sends in a step."""

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

    def parts(self) -> Iterator[Sent]:
        """All of it."""
        for part in (self.layers, self.edges, self.pipeline, self.parameters, self.control):
            yield from part()

    def layers(self) -> Iterator[Sent]:
        for layer, layers in self.layer_counts:
            experts, passes = self.config.layer_experts(layer), layers * self.count
            parts = [self._tensor(experts), self._context()]
            if experts is not None:
                parts += [self._exchange(experts), *self._router(experts)]
            for kind, sent, collectives in parts:
                yield Sent(kind, passes * sent, passes * collectives)

    def _tensor(self, experts: ExpertsConfig | None) -> Sent:
        """Outputs of split matrices forward, and once more if recomputed; gradients of their inputs backward.

        Recomputation ends before a feed-forward's last product, but after the experts, whose outputs are weighted.
        """
        again = 2 if self.again else 1
        outputs, inputs = [self.hidden] * again, [self.hidden]
        if experts is None or experts.shared_width:
            outputs, inputs = [*outputs, self.hidden], [*inputs, self.hidden]
        if experts is not None:
            assigned = assigned_rows(experts, self.tokens) * self.config.width
            outputs, inputs = outputs + [assigned] * again, [*inputs, assigned]
        numbers = sum(outputs) * self.output + sum(inputs) * FLOAT
        return Sent("tensor", all_reduce(self.layout.tensor) * numbers, len(outputs) + len(inputs))

    def _context(self) -> Sent:
        """Keys and values are gathered, and their gradients scattered."""
        times = 3 if self.again else 2
        own = 2 * self.hidden / self.layout.tensor * self.output
        return Sent("context", times * (self.layout.context - 1) * own, times)

    def _exchange(self, experts: ExpertsConfig) -> Sent:
        """Rows sent to their experts, as normed, and back, as multiplied; the gradients; numbers of rows."""
        there_and_back, again = (3, 2) if self.again else (2, 1)
        rows = there_and_back * assigned_rows(experts, self.tokens) * self.config.width * (FLOAT + self.output)
        sent = (self.layout.expert - 1) / self.layout.expert * (rows + again * INTEGER * experts.experts)
        return Sent("expert", sent, 2 * there_and_back + again)

    def _router(self, experts: ExpertsConfig) -> Iterator[Sent]:
        """Loads of the experts, for the balance of the whole batch."""
        if experts.routing == "token_choice":
            again = 2 if self.again else 1
            for kind in ("data", "shard", "context"):
                sent = again * INTEGER * experts.experts * all_reduce(getattr(self.layout, kind))
                yield Sent(kind, sent, again)

    def edges(self) -> Iterator[Sent]:
        """The loss has two collectives: of maxima, and of the other two sums."""
        each, count = all_reduce(self.layout.tensor) * self.count, self.count
        if self.is_first:
            yield Sent("tensor", each * self.hidden * FLOAT, count)
        if self.is_last:
            yield Sent("tensor", each * (self.hidden * FLOAT + self.tokens * ROW_SUMS), 3 * count)

    def pipeline(self) -> Iterator[Sent]:
        layout = self.layout
        if layout.pipeline > 1:
            sends = self.count * (2 * layout.virtual - self.is_first - self.is_last)
            yield Sent("pipeline", sends * self.hidden * FLOAT, sends)
            if self.config.tied_embeddings and (self.is_first or self.is_last):
                yield Sent("pipeline", all_reduce(2) * FLOAT * table_parameters(self.config, layout), 1)

    def parameters(self) -> Iterator[Sent]:
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
        layers = sum(count for _, count in units)
        passes = layers * (gathers[0] + 1) + gathers[1] + 1
        yield Sent("shard", all_reduce(shards) / 2 * FLOAT * received, passes)
        gradients = FLOAT * (padded + edge.padded) / shards
        yield Sent("data", all_reduce(replicas_of(layout)) * gradients, self._sums(gradients, layers))
        holders = layout.data * layout.shard * layout.context // layout.expert
        experts = sum(count * unit.experts for unit, count in units)
        yield Sent("data", all_reduce(holders) * FLOAT * experts, self._expert_tensors())

    def _sums(self, gradients: float, layers: int) -> float:
        """All-reduces of replicas: one per bucket, about; per layer and one more, if layers are sharded or split."""
        layout = self.layout
        if max(layout.shard, layout.tensor, layout.pipeline, layout.expert) > 1:
            return layers + 1
        return 1 + ceil(max(0.0, gradients - FIRST_BUCKET) / BUCKET)

    def _expert_tensors(self) -> int:
        """Matrices and biases of the experts on this device."""
        experts = [(self.config.layer_experts(layer), layers) for layer, layers in self.layer_counts]
        return sum(4 * layers * own.experts // self.layout.expert for own, layers in experts if own is not None)

    def control(self) -> Iterator[Sent]:
        """The gradient's norm by the devices that split its parts; the loss; whether to stop."""
        layout = self.layout
        shards, tensor = all_reduce(shards_of(layout)), all_reduce(layout.tensor)
        parts = 2 if layout.tensor > 1 else 1
        yield Sent("control", DOUBLE * parts * shards, parts)
        yield Sent("control", DOUBLE * tensor, 1)
        has_experts = any(self.config.layer_experts(layer) for layer, _ in self.layer_counts)
        if layout.expert > 1 and has_experts:
            yield Sent("control", DOUBLE * parts * all_reduce(layout.expert), parts)
            yield Sent("control", DOUBLE * tensor, 1)
        yield Sent("control", (DOUBLE + FLOAT) * all_reduce(layout.pipeline), 2)
        yield Sent("control", 2 * DOUBLE * all_reduce(layout.devices), 1)
