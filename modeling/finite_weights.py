"""Non-finite values (NaN or infinite), by tensor.

- `check_finite`: refuses them at load, import and export
- `first_non_finite`: where they are, for the message of a training step that diverged
- `to_dtype`: weights in the dtype of a file, unless they are too large for it
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from data_schemas.errors import ContractError

MAX_NAMED = 4
"""Tensors that a message names; the others are counted."""


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that would make every prediction NaN.

    Args:
        tensors: name -> weight of any dtype; integers are finite.
        where: their origin, such as a file's name.

    Raises:
        ContractError: naming the tensors, with the number of their non-finite values.
    """
    bad = {name: count for name, tensor in tensors.items() if (count := _non_finite(tensor))}
    if not bad:
        return
    named = ", ".join(_described(name, count, tensors[name]) for name, count in list(bad.items())[:MAX_NAMED])
    others = f" and {len(bad) - MAX_NAMED} more tensors have such values" if len(bad) > MAX_NAMED else ""
    raise ContractError(
        f"{where}: {named} that are not finite (NaN or infinite){others}; such weights cannot generate text: "
        "use an earlier checkpoint, or train again with a lower peak learning rate"
    )


def first_non_finite(model: nn.Module) -> str | None:
    """The first tensor with non-finite values, as part of a sentence; None if all weights and gradients are finite.

    Weights come first, in the order of the forward pass. If they are finite, the gradient nearest to the loss is named:
    the backward pass starts there, and carries non-finite values to all gradients after it.
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
        ContractError: if a value is beyond the dtype's range.
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
    """Number of values that are NaN or infinite."""
    if not tensor.is_floating_point():
        return 0
    return tensor.numel() - int(torch.isfinite(tensor.detach()).sum())


def _described(name: str, count: int, tensor: Tensor) -> str:
    return f"{name} has {count:,} of {tensor.numel():,} values"
