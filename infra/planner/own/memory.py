"""Memory of a device of this project's training, tensor by tensor.

- `own_memory_parts`: bytes by part on the fullest device; `device_memory_parts`: on a device by its pipeline rank

The parts are those that live at the fullest of three moments of a step's last micro-batch: when the loss is computed,
when the last layer's gradients are, and when the first layer's are.
"""

from dataclasses import dataclass

from infra.planner.layouts import Layout, Precision
from infra.planner.own.experts import assigned_rows
from infra.planner.own.flops import ONE_PASS_VOCABULARY
from infra.planner.own.parameters import OwnNetwork, edge_unit, layer_units, shards_of
from modeling.attention.kinds import pool_levels
from modeling.experts.config import ExpertsConfig

FLOAT, INTEGER = 4, 8
LOGIT_ROWS, LOGIT_ENTRIES, MAX_LOGITS = 256, 4_096, 2**24
"""Tiles of logits (`modeling.loss.logit_tiles.Tiling`)."""


@dataclass(frozen=True)
class TrainingState:
    """Bytes per parameter that live between steps."""

    optimizer: float = 8.0
    average: float = 4.0
    """The exponential moving average; 0 without one."""


@dataclass(frozen=True)
class _Moment:
    """Bytes at a moment of the micro-batch."""

    activations: float
    working: float
    logits: float
    gradients: float
    gathered: float

    @property
    def total(self) -> float:
        return self.activations + self.working + self.logits + self.gradients + self.gathered


def own_memory_parts(
    network: OwnNetwork, layout: Layout, precision: Precision, rows: int, state: TrainingState
) -> dict[str, float]:
    """Bytes by part on the fullest device.

    Args:
        network: sizes.
        layout: its micro-batch decides the activations.
        precision: of matrix products.
        rows: rows of the global batch.
        state: bytes of optimizer and average.
    """
    ends = {0, layout.pipeline - 1}  # the first holds most activations, the last the logits
    devices = [device_memory_parts(network, layout, precision, rows, state, stage) for stage in sorted(ends)]
    return max(devices, key=lambda parts: sum(parts.values()))


def least_memory(network: OwnNetwork, layout: Layout, state: TrainingState) -> float:
    """Bytes that any layout with these factors needs: a bound that is computed faster than the parts."""
    shards = shards_of(layout)
    edge = edge_unit(network, layout.tensor, shards, True, layout.pipeline == 1).padded
    held = (edge + sum(count * unit.padded for unit, count in layer_units(network, layout, 0))) / shards
    return held * (2 * FLOAT + state.optimizer + state.average) + (FLOAT * edge if shards > 1 else 0)


def device_memory_parts(
    network: OwnNetwork, layout: Layout, precision: Precision, rows: int, state: TrainingState, stage: int
) -> dict[str, float]:
    """As `own_memory_parts`, on the devices of a pipeline rank, counted from 0."""
    device = _Device(network, layout, precision, rows, stage)
    moment = max((device.loss(), device.last_layer(), device.first_layer()), key=lambda moment: moment.total)
    return {
        "weights": FLOAT * device.held,
        "gradients": moment.gradients,
        "optimizer": state.optimizer * device.held,
        "average": state.average * device.held,
        "gathered": moment.gathered,
        "activations": moment.activations,
        "working": moment.working + device.buffers(),
        "logits": moment.logits,
    }


class _Device:
    """A device of the layout."""

    def __init__(self, network: OwnNetwork, layout: Layout, precision: Precision, rows: int, stage: int) -> None:
        self.config, self.layout = network.config, layout
        config = network.config
        self.short = precision in ("bf16", "fp16")
        self.product = 2 if self.short else FLOAT
        """Bytes per number of a matrix product."""
        self.count = layout.micro_batches(rows)
        self.positions = config.context_length / layout.context
        self.tokens = layout.micro_batch * self.positions
        self.stream = FLOAT * self.tokens * config.width
        """Bytes of the residual stream."""
        self.is_first, self.is_last = stage == 0, stage == layout.pipeline - 1
        self.layer_counts = network.stage_layers(layout.pipeline, layout.virtual, stage)
        self.shards = shards_of(layout)
        self.units = layer_units(network, layout, stage)
        self.edge = edge_unit(network, layout.tensor, self.shards, self.is_first, self.is_last)
        self.experts = sum(count * unit.experts for unit, count in self.units)
        self.whole = sum(count * unit.whole for unit, count in self.units) + self.edge.whole
        self.held = (
            sum(count * unit.padded for unit, count in self.units) + self.edge.padded
        ) / self.shards + self.experts
        self.in_flight = self._in_flight(stage)
        self.losses = self.count if layout.all_in_flight and layout.pipeline > 1 else 1.0
        """Micro-batches whose losses, with their gradients, exist at once in the last stage."""
        self.table = config.vocabulary_size * config.bands[0][1] / layout.tensor

    def _in_flight(self, stage: int) -> float:
        """Micro-batches whose activations the device holds, as multiples of all its layers."""
        layout = self.layout
        if layout.pipeline == 1:
            return 1.0
        if layout.all_in_flight:
            return self.count
        following = layout.pipeline - 1 - stage
        if layout.virtual == 1:
            return min(following + 1, self.count)
        chunks = (layout.virtual - 1) * layout.pipeline + 2 * following + 1
        return min(chunks, self.count * layout.virtual) / layout.virtual

    def buffers(self) -> float:
        """Sent gradients in DistributedDataParallel, a pipeline's received tensors."""
        layout = self.layout
        replicas = layout.data * layout.context
        plain = layout.shard == layout.tensor == layout.pipeline == layout.expert == 1
        buckets = FLOAT * self.whole if plain and replicas > 1 else 0.0
        received = 2 * layout.virtual - self.is_first - self.is_last if layout.pipeline > 1 else 0
        return buckets + received * self.count * self.stream + self._rotations()

    def _rotations(self) -> float:
        """Cosines and sines of queries, keys and values."""
        return 2 * 3 * self.config.head_width * self.positions * FLOAT

    def kept(self, layer: int) -> float:
        """Bytes that a layer keeps for its gradients, its input included."""
        config, layout, tokens = self.config, self.layout, self.tokens
        width = tokens * config.width
        split = width / layout.tensor
        norms = 2 * self.stream + 2 * self.product * width + 4 * FLOAT * tokens
        attention = self.product * 4 * split + FLOAT * tokens * config.heads / layout.tensor
        if self.short:
            attention += self._rotations() / 2
        kind = config.layer_attention(layer)
        if layout.context > 1:
            attention += self.product * 2 * split * layout.context
        attention += sum(self.product * 2 * split * layout.context / level.stride for level in pool_levels(kind))
        experts = config.layer_experts(layer)
        if experts is None:
            return norms + attention + self.product * tokens * config.feed_forward_width / layout.tensor
        return norms + attention + self._experts_kept(experts)

    def _experts_kept(self, experts: ExpertsConfig) -> float:
        config, tokens = self.config, self.tokens
        rows = assigned_rows(experts, tokens)
        neurons = (experts.expert_width or config.feed_forward_width) / self.layout.tensor
        routed = self.product * rows * (2 * config.width + neurons) + 4 * INTEGER * rows
        router = 4 * FLOAT * tokens * experts.experts + (self.stream if self.short else 0)
        return routed + router + self.product * tokens * experts.shared_width / self.layout.tensor

    def activations(self) -> float:
        """Bytes of all micro-batches in flight, with the casts of weights that layers keep for the backward pass."""
        again = self.layout.recompute == "full"
        kept = sum(count * (self.stream if again else self.kept(layer)) for layer, count in self.layer_counts)
        if not again:
            kept += self.casts()
        if self.layout.pipeline > 1:
            # Stages also keep their outputs; the inputs of all but the first are among the received tensors.
            kept += self.stream * (self.is_first - self.is_last)
        return self.in_flight * kept

    def casts(self) -> float:
        """Copies of matrices in 16 bits, which autocast keeps until the forward pass ends."""
        if not self.short:
            return 0.0
        return 2 * sum(count * (unit.whole + unit.experts) for unit, count in self.units)

    def loss(self) -> _Moment:
        """The loss with its gradients, in tiles of logits."""
        casts = self.casts() if self.layout.recompute == "full" else 0.0
        if not self.is_last:
            return _Moment(self.activations(), casts, 0, self.gradients(), self.gathered(1))
        entries = self.config.vocabulary_size / self.layout.tensor
        one_pass = self.layout.tensor == 1 and entries <= ONE_PASS_VOCABULARY
        rows = min(LOGIT_ROWS, self.tokens, MAX_LOGITS // entries if one_pass else LOGIT_ROWS)
        tile = entries if one_pass else min(LOGIT_ENTRIES, entries)
        width = self.config.width
        logits = (6 if self.short else FLOAT) * rows * tile + FLOAT * self.table
        logits += (self.losses - 1) * (FLOAT * self.table + 2 * self.stream)
        logits += (2 + 2 + 4) * tile * width if self.short else 0
        logits += 0 if one_pass else FLOAT * tile * width
        normed = 2 * self.stream + (self.stream / 2 if self.short else 0)
        return _Moment(self.activations(), normed + self.stream + casts, logits, self.gradients(), self.gathered(1))

    def gradients(self) -> float:
        """Bytes from earlier micro-batches than those in flight; shards keep whole gradients until the last one."""
        return FLOAT * (self.whole + self.experts) if self.count > self.in_flight else 0.0

    def gathered(self, units: int) -> float:
        """Whole parameters on devices that hold shards: those outside the layers, and of some layers.

        Replicas beside other factors (torch's `replicate`) hold a second copy of all of theirs.
        """
        layout = self.layout
        if self.shards == 1:
            has_copy = layout.data * layout.context > 1 and layout.tensor * layout.pipeline * layout.expert > 1
            return FLOAT * self.whole if has_copy else 0.0
        largest = max(unit.padded for unit, _ in self.units)
        if layout.pipeline > 1:
            return FLOAT * (self.whole + largest)
        return FLOAT * (self.edge.padded + units * largest)

    def last_layer(self) -> _Moment:
        """The gradients of the last layer's feed-forward."""
        table = FLOAT * self.table if self.is_last else 0
        return _Moment(
            self.activations(),
            self._work(self.layer_counts[-1][0]) + 2 * self.stream,
            table,
            self.gradients(),
            self.gathered(3),
        )

    def _work(self, layer: int) -> float:
        """Gradients inside a layer, and the layer itself if it is computed again."""
        again = 0.0
        if self.layout.recompute == "full":
            again = self.kept(layer) - self.stream + (2 * self.units[-1][0].whole if self.short else 0)
        neurons = 2 * self.product * self.tokens * self.config.feed_forward_width / self.layout.tensor
        return again + neurons

    def first_layer(self) -> _Moment:
        """The gradient of the embedding, when all others exist."""
        # The gradient of a head that shares the table waits for it.
        tables = self.is_first + (self.is_first and self.is_last and self.config.tied_embeddings)
        table = FLOAT * self.table * tables
        others = self.activations() * max(self.in_flight - 1, 0) / self.in_flight
        gradients = float(self.whole + self.experts)
        if self.shards > 1 and self.count == self.layout.pipeline == 1:
            gradients = self.held + 2 * max(unit.padded for unit, _ in self.units)  # reduced layer by layer
        return _Moment(others, 2 * self.stream, table, FLOAT * gradients, self.gathered(2))
