"""A network from another's tensors after some of them have changed their shapes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import modeling.resized_pooling  # noqa: F401 - registers it
from data_schemas.errors import ConfigError
from modeling.attention.pooling import BlockPooling
from modeling.replacements import Description, empty_network
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

_FOLLOWS_FROM_SHAPES = ("linear", "block_pooling")


def check_float(model: Transformer, pass_name: str) -> None:
    """A network that is trained or decomposed must be float.

    Raises:
        ConfigError: where a matrix is of integers.
    """
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ConfigError(
                f"the pass {pass_name!r} found {name} in {kind}; it takes float matrices only: put {pass_name!r} "
                "before the pass that quantizes, which comes last"
            )


def float_state(model: Transformer, pass_name: str) -> dict[str, Tensor]:
    """Copies of all tensors; raises as `check_float`."""
    check_float(model, pass_name)
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def rebuild(
    config: TransformerConfig, replacements: Mapping[str, Description], state: Mapping[str, Tensor]
) -> Transformer:
    """The network in evaluation mode that has these tensors.

    Args:
        config: of the network.
        replacements: modules that the config does not give. Linear layers and poolings of other sizes than the config
            says need not stand here, and those that do are looked at anew.
        state: all tensors; not copied.
    """
    kinds = {name: one for name, one in replacements.items() if one["kind"] not in _FOLLOWS_FROM_SHAPES}
    with torch.device("meta"):
        plain = empty_network(config, kinds)
    kinds = dict(kinds)
    for name, module in plain.named_modules():
        resized = _resized(name, module, state)
        if resized is not None:
            kinds[name] = resized
    model = empty_network(config, kinds)
    # Kernels want rows in order; factors and cuts come transposed.
    model.load_state_dict({name: tensor.contiguous() for name, tensor in state.items()}, assign=True)
    if config.tied_embeddings:
        model.tie_head()
    return model


def _resized(name: str, module: nn.Module, state: Mapping[str, Tensor]) -> Description | None:
    if isinstance(module, nn.Linear):
        weight = state[f"{name}.weight"]
        if weight.shape == module.weight.shape:
            return None
        outputs, inputs = weight.shape
        return {"kind": "linear", "inputs": inputs, "outputs": outputs, "bias": module.bias is not None}
    if isinstance(module, BlockPooling) and module.content is not None:
        heads, head_width = state[f"{name}.content"].shape
        if heads != len(module.content):
            sizes: dict[str, Any] = {"heads": heads, "head_width": head_width, "ratio": module.ratio}
            return {"kind": "block_pooling", **sizes}
    return None
