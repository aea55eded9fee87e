"""A network as plans see it: parameters and FLOPs by part, sizes that memory and traffic follow from.

- `Network`: of this project's configs (`network_of`) or of any published transformer (`plain_network`)
"""

from dataclasses import dataclass
from math import gcd

from infra.planner.own.parameters import OwnNetwork
from modeling.attention.kinds import FullAttention
from modeling.evaluation.config_counts import forward_flops_by_part, parameters_by_part
from modeling.transformer_config import TransformerConfig


@dataclass(frozen=True)
class Network:
    """Sizes of a decoder. FLOPs are those of a forward pass, per token; a multiply-accumulate is two."""

    layers: int
    width: int
    heads: int
    key_value_width: int
    """Numbers per token of the keys, and of the values."""
    neurons: float
    """Feed-forward neurons that a token passes through, mean over the layers."""
    matrices: int
    """Matrices of a feed-forward: 2, or 3 if it is gated."""
    vocabulary: int
    context: int
    parameters: dict[str, int]
    """dense, experts, embedding, head; a tied table is in embedding."""
    flops: dict[str, float]
    """projections, scores, feed_forward, experts, head; scores include those that are masked."""
    causal_share: float = 0.5
    """Share of the scores that kernels compute."""
    active_experts: int = 0
    experts: int = 0
    expert_layers: int = 0
    output_only_activation: bool = False
    """The feed-forward's gradient needs its activations only, not their inputs (ReLU)."""
    tensor_unit: int = 1
    """Tensor parallelism splits heads and neurons into any divisor of this."""
    splits_layers: bool = True
    """Pipelines can split it."""
    own: OwnNetwork | None = None
    """This project's networks, whose tensors are counted one by one; None for others."""

    @property
    def total_parameters(self) -> int:
        """All parameters, shared ones once."""
        return sum(self.parameters.values())

    @property
    def active_parameters(self) -> int:
        """Parameters that a token uses."""
        share = self.active_experts / self.experts if self.experts else 0
        return self.total_parameters - self.parameters["experts"] + round(self.parameters["experts"] * share)

    @property
    def layer_flops(self) -> float:
        """FLOPs of all layers' matrices, without scores and head."""
        return self.flops["projections"] + self.flops["feed_forward"] + self.flops["experts"]

    @property
    def forward_flops(self) -> float:
        """FLOPs of everything, per token."""
        return sum(self.flops.values())

    @property
    def training_flops(self) -> float:
        """Per token, without recomputation."""
        return 3 * self.forward_flops


def network_of(config: TransformerConfig) -> Network:
    """The network of a config of this project; parameters and FLOPs are exact."""
    context = config.context_length
    flops = {part: count / context for part, count in forward_flops_by_part(config, context).items()}
    kinds = [config.layer_attention(layer) for layer in range(config.layers)]
    experts = config.experts
    return Network(
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        key_value_width=config.width,
        neurons=(flops["feed_forward"] + flops["experts"]) / (4 * config.width * config.layers),
        matrices=2,
        vocabulary=config.vocabulary_size,
        context=context,
        parameters=parameters_by_part(config),
        flops=flops,
        causal_share=0.5 if all(isinstance(kind, FullAttention) for kind in kinds) else 1.0,
        active_experts=experts.active if experts else 0,
        experts=experts.experts if experts else 0,
        expert_layers=sum(config.layer_experts(layer) is not None for layer in range(config.layers)),
        output_only_activation=True,
        tensor_unit=_tensor_unit(config),
        splits_layers=not (config.embedding_bands and config.tied_embeddings),
        own=OwnNetwork(config),
    )


def _tensor_unit(config: TransformerConfig) -> int:
    """Greatest common divisor of what is split; 1 if `stages.pretrain.parallel.layout` refuses to split it."""
    kinds = [config.layer_attention(layer) for layer in range(config.layers)]
    if config.embedding_bands or any(getattr(kind, "pooling", "") == "learnt" for kind in kinds):
        return 1
    widths = [config.heads, config.feed_forward_width]
    if config.experts is not None:
        widths += [config.experts.expert_width or config.feed_forward_width, config.experts.shared_width]
    return gcd(*widths)


def plain_network(
    layers: int,
    width: int,
    heads: int,
    feed_forward: int,
    vocabulary: int,
    context: int,
    *,
    key_value_heads: int | None = None,
    gated: bool = False,
    tied: bool = False,
    learned_positions: bool = False,
    experts: int = 0,
    active_experts: int = 0,
    expert_width: int = 0,
    shared_width: int = 0,
    dense_layers: int = 0,
) -> Network:
    """A published transformer, with grouped queries, a gated feed-forward and experts if it has them.

    Args:
        layers: number of layers.
        width: numbers per token.
        heads: query heads of width / heads each.
        feed_forward: neurons of a dense feed-forward.
        vocabulary: entries.
        context: tokens per row.
        key_value_heads: heads of keys and values; as many as query heads by default.
        gated: the feed-forward has three matrices.
        tied: the head uses the embedding's table.
        learned_positions: a table of positions.
        experts: routed experts per layer; 0: none.
        active_experts: routed experts per token.
        expert_width: neurons of each routed expert.
        shared_width: neurons of the shared expert.
        dense_layers: leading layers without experts.
    """
    matrices = 3 if gated else 2
    key_value_width = round(width * (key_value_heads or heads) / heads)
    projections = 2 * width * width + 2 * width * key_value_width
    expert_layers = layers - dense_layers if experts else 0
    dense_neurons = feed_forward * (layers - expert_layers)
    shared, routed = shared_width * expert_layers, expert_width * expert_layers
    feed_forward_parameters = matrices * width * (dense_neurons + shared) + experts * width * expert_layers
    return Network(
        layers=layers,
        width=width,
        heads=heads,
        key_value_width=key_value_width,
        neurons=(dense_neurons + shared + active_experts * routed) / layers,
        matrices=matrices,
        vocabulary=vocabulary,
        context=context,
        parameters={
            "dense": layers * projections + feed_forward_parameters + 4 * layers * width,
            "experts": matrices * width * experts * routed,
            "embedding": vocabulary * width + (context * width if learned_positions else 0),
            "head": 0 if tied else vocabulary * width,
        },
        flops={
            "projections": 2.0 * layers * projections,
            "scores": 4.0 * layers * width * context,
            "feed_forward": 2.0 * matrices * width * dense_neurons,
            "experts": 2.0 * matrices * width * (shared + active_experts * routed)
            + 2.0 * experts * width * expert_layers,
            "head": 2.0 * width * vocabulary,
        },
        active_experts=active_experts,
        experts=experts,
        expert_layers=expert_layers,
        tensor_unit=gcd(heads, feed_forward),
    )
