"""Quantization-aware training: the network is rounded, what is trained are the floats behind it.

Gradients are taken at the rounded weights and applied to the floats (the straight-through estimator, Bengio et al.
2013, 1308.3432; for language models LLM-QAT, Liu et al. 2023, 2305.17888). The optimizer moves the rounded weights as
if they were floats; after each step the move is added to the floats behind them, which are rounded anew.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modeling.layers.integer_grid import IntegerGrid, round_trip
from modeling.transformer import Transformer


def weight_grids(model: Transformer, grid: IntegerGrid, table: IntegerGrid) -> dict[str, IntegerGrid]:
    """Parameter name -> grid: `grid` of the decoder layers' matrices, `table` of embedding and head, once if tied."""
    matrices = {f"{name}.weight" for name, one in model.named_modules() if isinstance(one, nn.Linear | nn.Embedding)}
    names = [name for name, _ in model.named_parameters() if name in matrices]
    return {name: grid if name.startswith("layers.") else table for name in names}


class QuantizationAwareTraining:
    """Keeps a network rounded while it is trained."""

    def __init__(self, model: Transformer, grids: Mapping[str, IntegerGrid]) -> None:
        """Round the parameters that `grids` names, in place."""
        self._grids = grids
        self._floats = {name: model.get_parameter(name).detach().clone() for name in grids}
        self._rounded = {name: round_trip(self._floats[name], grid) for name, grid in grids.items()}
        self._show(model)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a killed training needs besides the network, to be filled in place before it goes on."""
        floats = {f"float.{name}": tensor for name, tensor in self._floats.items()}
        return floats | {f"rounded.{name}": tensor for name, tensor in self._rounded.items()}

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """Add the optimizer's move to the floats, and show the network what they round to."""
        for name, grid in self._grids.items():
            move = model.get_parameter(name) - self._rounded[name]
            if not grid.offset:
                move *= self._floats[name] != 0  # what was pruned stays zero
            self._floats[name] += move
            self._rounded[name].copy_(round_trip(self._floats[name], grid))
        self._show(model)

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Give the network the floats: they round to what was trained."""
        for name, floats in self._floats.items():
            model.get_parameter(name).copy_(floats)

    @torch.no_grad()
    def _show(self, model: nn.Module) -> None:
        for name, rounded in self._rounded.items():
            model.get_parameter(name).copy_(rounded)
