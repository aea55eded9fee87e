"""Rows that experts compute."""

from math import ceil

from modeling.experts.config import ExpertsConfig


def assigned_rows(experts: ExpertsConfig, tokens: float) -> float:
    """Pairs of a token and an expert in a layer; without those that the capacity drops, if it drops from all equally.

    Args:
        experts: the layer's.
        tokens: of a forward pass on a device.
    """
    factor = experts.capacity_factor or (1.0 if experts.routing == "expert_choice" else None)
    if factor is None:
        return tokens * experts.active
    capacity = min(tokens, ceil(factor * tokens * experts.active / experts.experts))
    chosen = experts.experts * capacity
    return chosen if experts.routing == "expert_choice" else min(tokens * experts.active, chosen)
