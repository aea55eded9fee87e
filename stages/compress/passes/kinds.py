"""The passes by kind: each takes a network and gives the smaller one."""

from importlib import import_module
from typing import Any

from modeling.transformer import Transformer
from stages.compress.pass_context import PassContext

MODULES = {
    "distill": "distill_pass",
    "structured": "structured_pass",
    "linear_attention": "attention_pass",
    "lsh_attention": "attention_pass",
    "low_rank": "low_rank_pass",
    "sparse_activations": "sparse_pass",
    "prune": "prune_pass",
    "int8": "quantize_pass",
    "int4": "quantize_pass",
    "int2": "quantize_pass",
}
"""Kind of the pass -> module with its `apply(one, model, context)`."""


def apply_pass(one: Any, model: Transformer, context: PassContext) -> Transformer:
    """Apply one pass of the config.

    Raises:
        ConfigError: where the network is not what the pass needs, with what would be.
    """
    apply = import_module(f"stages.compress.{MODULES[one.kind]}").apply
    compressed: Transformer = apply(one, model, context)
    return compressed.eval()
