"""Numbers that are none (NaN) or infinite, found and named by tensor.

- `check_finite`: at load, import and export
- `first_non_finite`: for the message of a training step that diverged
- `to_dtype`: weights in the dtype of a file, unless they are too large for it
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from data_schemas.errors import ContractError

NAMED = 4
"""Tensors that a message names; the others are counted."""


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that would make every prediction NaN.

    Args:
        tensors: name -> weight of any dtype; integers are finite.
        where: what holds them, such as a file's name.

    Raises:
        ContractError: naming the tensors, with how many of their values are not finite.
    """
    bad = {name: count for name, tensor in tensors.items() if (count := _non_finite(tensor))}
    if not bad:
        return
    named = ", ".join(_described(name, count, tensors[name]) for name, count in list(bad.items())[:NAMED])
    others = f" and {len(bad) - NAMED} more tensors have such values" if len(bad) > NAMED else ""
    raise ContractError(
        f"{where}: {named} that are not finite (NaN or infinite){others}; no text comes out of such weights: "
        "take an earlier checkpoint, or train again with a lower peak learning rate"
    )


def first_non_finite(model: nn.Module) -> str | None:
    """Where a network stopped being finite, as part of a sentence; None where weights and gradients all are finite.

    Weights come first, in the order of the forward pass. Where they are finite the gradient is named that is nearest to
    the loss: the backward pass begins there, and spreads what is not finite to all before it.
    """
    parameters = list(model.named_parameters())
    for name, parameter in parameters:
        if count := _non_finite(parameter):
            return f"the weight {_described(name, count, parameter)} that are not finite"
    for name, parameter in reversed(parameters):
        if parameter.grad is not None and (count := _non_finite(parameter.grad)):
            return f"the gradient of {_described(name, count, parameter.grad)} that are not finite"
    return None


def to_dtype(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in a file's dtype.

    Raises:
        ContractError: where a value is beyond what the dtype holds.
    """
    largest = float(tensor.abs().amax())
    if largest > torch.finfo(dtype).max:
        short = str(dtype).removeprefix("torch.")
        raise ContractError(
            f"{name} has a value of {largest:.6g}, and {short} holds {torch.finfo(dtype).max:,.0f} at most; "
            "export with --dtype bfloat16 or float32"
        )
    return tensor.to(dtype).contiguous()


def _non_finite(tensor: Tensor) -> int:
    """How many values are NaN or infinite."""
    if not tensor.is_floating_point():
        return 0
    return tensor.numel() - int(torch.isfinite(tensor.detach()).sum())


def _described(name: str, count: int, tensor: Tensor) -> str:
    return f"{name} has {count:,} of {tensor.numel():,} values"
