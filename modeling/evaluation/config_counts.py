"""Parameters and FLOPs of a network from its config. Imports no torch.

- `parameters`, `active_parameters`, `embedding_parameters`, `parameters_by_part`
- `forward_flops`, `flops_per_token`, `forward_flops_by_part`
"""

from collections.abc import Callable
from itertools import pairwise

from modeling.attention.kinds import AttentionKind, PooledAttention
from modeling.attention.tiles import computed_scores, level_strides
from modeling.experts.config import ExpertsConfig
from modeling.transformer_config import TransformerConfig


def parameters(config: TransformerConfig) -> int:
    """Number of parameters; shared ones count once."""
    return _parameters(config, lambda experts: experts.experts)


def active_parameters(config: TransformerConfig) -> int:
    """Parameters that a token uses: only the `active` experts."""
    return _parameters(config, lambda experts: experts.active)


def embedding_parameters(config: TransformerConfig) -> int:
    """Parameters of embedding and head: tables, a single one if tied, and the projections of both."""
    tables = sum(entries * width for entries, width in config.bands)
    projections = sum(width * config.width for _, width in config.bands if width != config.width)
    return (1 if config.tied_embeddings else 2) * tables + 2 * projections


def parameters_by_part(config: TransformerConfig) -> dict[str, int]:
    """`parameters` as a sum: embedding, head (0 if tied, without bands), experts (routed only), dense (all others)."""
    tables = sum(entries * width for entries, width in config.bands)
    projections = sum(width * config.width for _, width in config.bands if width != config.width)
    embedding = tables + projections
    head = embedding_parameters(config) - embedding
    routed = parameters(config) - _parameters(config, lambda experts: 0)
    return {
        "embedding": embedding,
        "head": head,
        "experts": routed,
        "dense": parameters(config) - routed - embedding - head,
    }


def forward_flops(config: TransformerConfig, context: int) -> int:
    """FLOPs of a forward pass over a row of `context` tokens; a training step needs three times as many.

    A multiply-accumulate is two FLOPs. Counts all matrix products as torch's FlopCounterMode does, including the head
    and masked scores: all (context x context) of full attention, although the causal kernel skips nearly half; for
    other kinds those of `modeling.attention.tiles`. Tokens are assumed to be in the first embedding band and to use
    `active` experts each. Not counted: norms, softmax, ReLU, rotary embedding, pooling, look-ups, and recomputation in
    the backward pass.
    """
    return sum(forward_flops_by_part(config, context).values())


def forward_flops_by_part(config: TransformerConfig, context: int) -> dict[str, int]:
    """`forward_flops` as a sum: projections (of attention), scores, feed_forward, experts (with router), head.

    `scores` are the products of queries and keys, and of these with values; `experts` includes the shared expert;
    `head` includes the projections of the embedding's bands.
    """
    layers = range(config.layers)
    scores = sum(computed_scores(config.layer_attention(layer), context) for layer in layers)
    feed_forward = sum(
        2 * config.width * config.feed_forward_width for layer in layers if not config.layer_experts(layer)
    )
    experts = sum(_expert_products(config, experts) for layer in layers if (experts := config.layer_experts(layer)))
    return {
        "projections": 2 * context * config.layers * 4 * config.width**2,
        "scores": 4 * scores * config.width,
        "feed_forward": 2 * context * feed_forward,
        "experts": 2 * context * experts,
        "head": 2 * context * _embedding_products(config),
    }


def flops_per_token(config: TransformerConfig, context: int) -> float:
    """`forward_flops` per token."""
    return forward_flops(config, context) / context


def _parameters(config: TransformerConfig, expert_count: Callable[[ExpertsConfig], int]) -> int:
    total = embedding_parameters(config) + 2 * config.width
    for layer in range(config.layers):
        attention = 4 * config.width**2 + 4 * config.width + _pooling_parameters(config, config.layer_attention(layer))
        total += (
            attention + 4 * config.width + _feed_forward_parameters(config, config.layer_experts(layer), expert_count)
        )
    return total


def _pooling_parameters(config: TransformerConfig, kind: AttentionKind) -> int:
    if not isinstance(kind, PooledAttention) or kind.pooling == "mean":
        return 0
    ratios = [coarser // finer for finer, coarser in pairwise(level_strides(kind))]
    return sum(config.width + config.heads * ratio for ratio in ratios)


def _feed_forward_parameters(
    config: TransformerConfig, experts: ExpertsConfig | None, expert_count: Callable[[ExpertsConfig], int]
) -> int:
    def dense(neurons: int) -> int:
        return 2 * config.width * neurons + neurons + config.width

    if experts is None:
        return dense(config.feed_forward_width)
    shared = dense(experts.shared_width) if experts.shared_width else 0
    router = experts.experts * config.width
    return router + shared + expert_count(experts) * dense(experts.expert_width or config.feed_forward_width)


def _expert_products(config: TransformerConfig, experts: ExpertsConfig) -> int:
    """Multiply-accumulates per token of a layer's router, active and shared experts."""
    neurons = experts.active * (experts.expert_width or config.feed_forward_width) + experts.shared_width
    return 2 * config.width * neurons + experts.experts * config.width


def _embedding_products(config: TransformerConfig) -> int:
    """Multiply-accumulates per token of the head and of the embedding projection of the first band."""
    projections = [width * config.width if width != config.width else 0 for _, width in config.bands]
    head = sum(projections) + sum(entries * width for entries, width in config.bands)
    return head + projections[0]
