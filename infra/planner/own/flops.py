"""FLOPs of a step of this project's training on all devices, as torch's FlopCounterMode counts them.

- `own_step_flops`: by part
- `tiled_scores`: products of queries and keys in rows whose tokens are split
"""

from collections import Counter
from functools import lru_cache

import numpy as np

from infra.planner.layouts import Layout
from infra.planner.own.experts import assigned_rows
from modeling.attention.kinds import AttentionKind, FullAttention
from modeling.attention.tiles import computed_scores, document_tiles
from modeling.evaluation.config_counts import forward_flops_by_part
from modeling.transformer_config import TransformerConfig

MATRIX_PASSES = 3.0
"""Forward pass, gradients of inputs and of weights."""
TILED_PASSES = 3.5
"""Tiles compute scores again for the gradient: two products forward, five backward."""
ONE_PASS_VOCABULARY = 2**19
"""Largest vocabulary whose logits are computed once (`modeling.loss.logit_tiles.Tiling.one_pass`)."""


def own_step_flops(config: TransformerConfig, layout: Layout, rows: int) -> dict[str, float]:
    """FLOPs of an optimizer step by part: projections, scores, feed_forward, experts, head, recompute.

    Rows are assumed to be one document each, tokens to be in the first embedding band and experts to be chosen equally
    often. Not counted: learned pooling, and the optimizer (Muon multiplies matrices).

    Args:
        config: the network.
        layout: factors, micro-batch and recomputation.
        rows: rows of the global batch.
    """
    forward = {
        part: float(rows * flops) for part, flops in forward_flops_by_part(config, config.context_length).items()
    }
    scores = _scores(config, layout)
    experts = _expert_flops(config, layout, rows)
    twice = layout.tensor > 1 or config.vocabulary_size > ONE_PASS_VOCABULARY
    shared = experts["shared"]
    step = {
        "projections": MATRIX_PASSES * forward["projections"],
        "scores": sum(passes * 4.0 * rows * config.width * count for passes, count in scores),
        "feed_forward": MATRIX_PASSES * forward["feed_forward"],
        "experts": MATRIX_PASSES * sum(experts.values()),
        "head": (MATRIX_PASSES + twice) * forward["head"],
        "recompute": 0.0,
    }
    if layout.recompute == "full":
        # It ends before a feed-forward's last product, whose output is not needed; those of experts are.
        step["recompute"] = forward["projections"] + forward["feed_forward"] / 2 + sum(experts.values()) - shared / 2
        step["recompute"] += sum(4.0 * rows * config.width * count for _, count in scores)
    return step


def _scores(config: TransformerConfig, layout: Layout) -> list[tuple[float, int]]:
    """(passes, products of a query and a key in a row) of each kind of attention, summed over its layers."""
    kinds = Counter(config.layer_attention(layer) for layer in range(config.layers))
    length, split = config.context_length, layout.context
    return [
        (
            MATRIX_PASSES if isinstance(kind, FullAttention) and split == 1 else TILED_PASSES,
            layers * (computed_scores(kind, length) if split == 1 else tiled_scores(kind, length, split)),
        )
        for kind, layers in kinds.items()
    ]


@lru_cache(maxsize=256)
def tiled_scores(kind: AttentionKind, length: int, split: int) -> int:
    """Products of a query and a key in a row of `length` tokens that `split` devices share, including masked ones."""
    own = length // split
    starts = np.zeros((1, own), np.int64)
    return sum(tile.scores for rank in range(split) for tile in document_tiles(kind, starts, rank * own))


def _expert_flops(config: TransformerConfig, layout: Layout, rows: int) -> dict[str, float]:
    """FLOPs of a forward pass: router (on every tensor rank), routed and shared experts."""
    experts = config.experts
    if experts is None:
        return {"shared": 0.0}
    tokens = layout.micro_batch * config.context_length / layout.context
    layers = sum(config.layer_experts(layer) is not None for layer in range(config.layers))
    micro_batches = layers * rows / layout.micro_batch * layout.context
    neurons = experts.expert_width or config.feed_forward_width
    each = 2.0 * config.width * micro_batches
    return {
        "router": each * tokens * experts.experts * layout.tensor,
        "routed": each * 2 * assigned_rows(experts, tokens) * neurons,
        "shared": each * 2 * tokens * experts.shared_width,
    }
