"""Parameters and FLOPs of a network from its config. Imports no torch.

- `parameters`, `active_parameters`, `embedding_parameters`
- `forward_flops`, `flops_per_token`
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


def forward_flops(config: TransformerConfig, context: int) -> int:
    """FLOPs of a forward pass over a row of `context` tokens; a training step needs three times as many.

    A multiply-accumulate is two FLOPs. Counts all matrix products as torch's FlopCounterMode does, including the head
    and masked scores: all (context x context) of full attention, although the causal kernel skips nearly half; for
    other kinds those of `modeling.attention.tiles`. Tokens are assumed to be in the first embedding band and to use
    `active` experts each. Not counted: norms, softmax, ReLU, rotary embedding, pooling, look-ups, and recomputation in
    the backward pass.
    """
    per_token = sum(_layer_products(config, layer) for layer in range(config.layers)) + _embedding_products(config)
    scores = sum(computed_scores(config.layer_attention(layer), context) for layer in range(config.layers))
    return 2 * (per_token * context + 2 * scores * config.width)


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


def _layer_products(config: TransformerConfig, layer: int) -> int:
    """Multiply-accumulates per token, without attention scores and mixing of values."""
    experts = config.layer_experts(layer)
    neurons, router = config.feed_forward_width, 0
    if experts is not None:
        neurons = experts.active * (experts.expert_width or config.feed_forward_width) + experts.shared_width
        router = experts.experts * config.width
    return 4 * config.width**2 + 2 * config.width * neurons + router


def _embedding_products(config: TransformerConfig) -> int:
    """Multiply-accumulates per token of the head and of the embedding projection of the first band."""
    projections = [width * config.width if width != config.width else 0 for _, width in config.bands]
    head = sum(projections) + sum(entries * width for entries, width in config.bands)
    return head + projections[0]
