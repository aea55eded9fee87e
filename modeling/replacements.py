"""Networks whose modules were replaced by smaller ones: what stands where, as JSON, and the empty network from it.

- `Replacement`: what a module offers that may take another's place
- `replacements_of`: name -> description of every module that the network's config alone would not give
- `empty_network`: the network on the meta device, waiting for `load_state_dict(assign=True)`

A replaced module may itself be made of linear layers that are replaced in turn: a low-rank layer in int8.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from data_schemas.errors import ContractError
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

Description = dict[str, Any]
"""{"kind": name of the class in `kinds`, and its sizes: the arguments of its constructor, as JSON}."""


@runtime_checkable
class Replacement(Protocol):
    """A module class that may be registered with `replaces`: its constructor makes room, without values."""

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON."""


kinds: dict[str, type[nn.Module]] = {}


def replaces(name: str) -> Any:
    """Register a module class under the name that files know it by."""

    def register(module_class: type[nn.Module]) -> type[nn.Module]:
        kinds[name] = module_class
        return module_class

    return register


@replaces("linear")
class ResizedLinear(nn.Linear):
    """A linear layer that has lost inputs or outputs."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__(inputs, outputs, bias)

    def sizes(self) -> dict[str, Any]:
        """As in `Replacement`."""
        return {"inputs": self.in_features, "outputs": self.out_features, "bias": self.bias is not None}


def replacements_of(model: Transformer) -> dict[str, Description]:
    """Module name -> description, outer modules before those inside."""
    found: dict[str, Description] = {}
    for name, module in model.named_modules():
        if type(module) in kinds.values():
            kind = kind_of(module)
            assert isinstance(module, Replacement)
            found[name] = {"kind": kind, **module.sizes()}
    return found


def kind_of(module: nn.Module) -> str:
    """The name that files know a replacement by; of any other module the class's."""
    return next((name for name, one in kinds.items() if one is type(module)), type(module).__name__)


def empty_network(config: TransformerConfig, replacements: Mapping[str, Description]) -> Transformer:
    """The network's modules on the meta device, in evaluation mode.

    Raises:
        ContractError: where a description is of an unknown kind or has other sizes than the kind takes, or its place is
            not in the network.
    """
    import modeling.replacement_kinds  # noqa: F401 - registers them all

    with torch.device("meta"):
        model = Transformer(config)
        for name, description in replacements.items():
            try:
                model.get_submodule(name)
                module_class = kinds[description["kind"]]
                module = module_class(**{key: value for key, value in description.items() if key != "kind"})
            except (AttributeError, KeyError, TypeError) as error:
                raise ContractError(
                    f"config.json replaces {name!r} by {description!r}, which this version cannot make ({error}); "
                    f"it knows {', '.join(sorted(kinds))}"
                ) from None
            model.set_submodule(name, module)
    return model.eval()
