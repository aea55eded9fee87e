"""The passes by kind: each takes a network and gives the smaller one."""

from importlib import import_module
from typing import Any

from modeling.transformer import Transformer
from stages.compress.pass_context import PassContext

MODULES = {
    "distill": "distill",
    "structured": "structured",
    "linear_attention": "attention",
    "lsh_attention": "attention",
    "low_rank": "low_rank",
    "sparse_activations": "sparse_activations",
    "prune": "prune",
    "int8": "quantize",
    "int4": "quantize",
    "int2": "quantize",
}
"""Kind of the pass -> module with its `apply(one, model, context)`."""


def apply_pass(one: Any, model: Transformer, context: PassContext) -> Transformer:
    """Apply one pass of the config.

    Raises:
        ConfigError: where the network is not what the pass needs, with what would be.
    """
    apply = import_module(f"stages.compress.passes.{MODULES[one.kind]}").apply
    compressed: Transformer = apply(one, model, context)
    return compressed.eval()
