"""All compression passes, and the order in which they can be applied.

A pass is one class: its config, with a method `apply(model, context)` that returns the smaller network and may change
`model`. A new one is a file in this folder, listed in `CompressionPass` and in `ORDER`. `headrace plan` reads these
files, so they import torch, and whatever imports torch, inside functions.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from stages.compress.passes.attention import LinearAttentionPass, LshAttentionPass
from stages.compress.passes.distill import DistillPass
from stages.compress.passes.low_rank import LowRankPass
from stages.compress.passes.prune import PrunePass
from stages.compress.passes.quantize import Int8Pass, PackedPass
from stages.compress.passes.sparse_activations import SparseActivationsPass
from stages.compress.passes.structured import StructuredPass

CompressionPass = Annotated[
    DistillPass
    | StructuredPass
    | LinearAttentionPass
    | LshAttentionPass
    | LowRankPass
    | SparseActivationsPass
    | PrunePass
    | Int8Pass
    | PackedPass,
    Field(discriminator="kind"),
]
ORDER = (
    ("distill", "structured"),
    ("linear_attention", "lsh_attention", "low_rank"),
    ("sparse_activations", "prune"),
    ("int8", "int4", "int2"),
)
"""Groups of passes, first to last. Within a group any order works, and passes may repeat, except in the last group."""
REASONS = {
    1: "a network whose modules were replaced is not cut any further",
    2: "the zeros would be lost",
    3: "integer weights are not trained any further",
}
"""Index of a pass's group -> why a pass of an earlier group, or of the same last group, cannot follow it."""


def check_order(kinds: Sequence[str]) -> None:
    """Refuse a list of passes that does not follow `ORDER`.

    Raises:
        ValueError: with the reason and the order that works.
    """
    groups = {kind: index for index, group in enumerate(ORDER) for kind in group}
    for kind, following in pairwise(kinds):
        group, following_group = groups[kind], groups[following]
        if following_group < group or following_group == group == len(ORDER) - 1:
            order = ", then ".join(" or ".join(group) for group in ORDER)
            raise ValueError(
                f"the pass {following!r} cannot follow {kind!r}: {REASONS[group]}; the order that works is {order}"
            )
