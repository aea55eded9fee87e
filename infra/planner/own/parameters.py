"""Parameters that a device of this project's training holds, tensor by tensor.

- `OwnNetwork`: a config, and the layers of a pipeline stage
- `Unit`: the parameters that shards gather and reduce together: a layer (`layer_unit`; `layer_units`: of a stage), or
  what a pipeline stage has besides layers (`edge_unit`)
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import prod

from infra.planner.layouts import Layout
from modeling.attention.kinds import PooledAttention
from modeling.attention.tiles import level_strides
from modeling.experts.config import ExpertsConfig
from modeling.transformer_config import TransformerConfig

Shape = tuple[int, ...]


class OwnNetwork:
    """A config of this project. Compared by identity: a search looks the same sizes up thousands of times."""

    def __init__(self, config: TransformerConfig) -> None:
        self.config = config
        kinds = [(config.layer_attention(layer), config.layer_experts(layer) is None) for layer in range(config.layers)]
        self._equal = [kinds.index(kind) for kind in kinds]

    @lru_cache(maxsize=4_096)  # noqa: B019, a few networks per process
    def stage_layers(self, pipeline: int, virtual: int, stage: int) -> tuple[tuple[int, int], ...]:
        """Layers of a device: (index of the first layer that is equal to it, how many there are).

        Args:
            pipeline: devices.
            virtual: stages of each.
            stage: rank of the device in the pipeline, counted from 0.
        """
        each = self.config.layers // (pipeline * virtual)
        firsts = [(stage + turn * pipeline) * each for turn in range(virtual)]
        return tuple(Counter(self._equal[layer] for first in firsts for layer in range(first, first + each)).items())


@dataclass(frozen=True)
class Unit:
    """Counts of parameters of a tensor rank."""

    whole: int
    """Before sharding, without split experts."""
    padded: int
    """The same with the first dimension of each tensor rounded up to a multiple of the shards."""
    experts: int = 0
    """Parameters of the experts on this device, if they are split; shards do not split them again."""


def shards_of(layout: Layout) -> int:
    """Devices that hold different shards: those that split the tokens of a row count as well, if there are any."""
    return layout.shard * layout.context if layout.shard > 1 else 1


def replicas_of(layout: Layout) -> int:
    """Devices with the same shards, which sum their gradients."""
    return layout.data * layout.shard * layout.context // shards_of(layout)


@lru_cache(maxsize=4_096)
def layer_unit(network: OwnNetwork, layer: int, tensor: int, shards: int, expert: int) -> Unit:
    """Parameters of a layer.

    Args:
        network: sizes.
        layer: counted from 0.
        tensor: tensor ranks.
        shards: from `shards_of`.
        expert: devices that split the experts.
    """
    config = network.config
    width, experts = config.width, config.layer_experts(layer)
    shapes: list[Shape] = [(width,)] * 4
    shapes += [(3 * width // tensor, width), (3 * width // tensor,), (width, width // tensor), (width,)]
    kind = config.layer_attention(layer)
    if isinstance(kind, PooledAttention) and kind.pooling == "learnt":
        for finer, coarser in pairwise(level_strides(kind)):
            shapes += [(config.heads, config.head_width), (config.heads, coarser // finer)]
    if experts is None:
        return _unit([*shapes, *_feed_forward(width, config.feed_forward_width, tensor)], shards)
    shapes.append((experts.experts, width))
    if experts.shared_width:
        shapes += _feed_forward(width, experts.shared_width, tensor)
    own = _expert_shapes(config, experts, tensor)
    if expert == 1:
        return _unit([*shapes, *own * experts.experts], shards)
    return _unit(shapes, shards, sum(map(prod, own)) * experts.experts // expert)


def layer_units(network: OwnNetwork, layout: Layout, stage: int) -> list[tuple[Unit, int]]:
    """Units of the layers of a pipeline rank, and the number of layers with each, as in `stage_layers`."""
    return [
        (layer_unit(network, layer, layout.tensor, shards_of(layout), layout.expert), count)
        for layer, count in network.stage_layers(layout.pipeline, layout.virtual, stage)
    ]


@lru_cache(maxsize=4_096)
def edge_unit(network: OwnNetwork, tensor: int, shards: int, first: bool, last: bool) -> Unit:
    """Parameters of a device outside the layers: embedding, final norm, head.

    Args:
        network: sizes.
        tensor: tensor ranks.
        shards: from `shards_of`.
        first: whether the device has the first stage.
        last: whether it has the last.
    """
    config = network.config
    tied = config.tied_embeddings
    tables: list[Shape] = [(-(-entries // tensor), width) for entries, width in config.bands]
    projections: list[Shape] = [(config.width, width) for _, width in config.bands if width != config.width]
    shapes: list[Shape] = []
    if first or (last and tied):
        shapes += tables + (projections if first else [])
    if last:
        shapes += [(config.width,)] * 2 + ([] if tied else tables)
        shapes += [(columns, rows) for rows, columns in projections]
    return _unit(shapes, shards)


def table_parameters(config: TransformerConfig, layout: Layout) -> float:
    """Entries of the embedding's tables on a device."""
    return sum(-(-entries // layout.tensor) * width for entries, width in config.bands) / shards_of(layout)


def _feed_forward(width: int, neurons: int, tensor: int) -> list[Shape]:
    return [(neurons // tensor, width), (neurons // tensor,), (width, neurons // tensor), (width,)]


def _expert_shapes(config: TransformerConfig, experts: ExpertsConfig, tensor: int) -> list[Shape]:
    return _feed_forward(config.width, experts.expert_width or config.feed_forward_width, tensor)


def _unit(shapes: list[Shape], shards: int, experts: int = 0) -> Unit:
    padded = sum(-(-shape[0] // shards) * shards * prod(shape[1:]) for shape in shapes)
    return Unit(sum(map(prod, shapes)), padded, experts)
