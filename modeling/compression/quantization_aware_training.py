"""Quantization-aware training: the network computes with rounded weights, float weights are trained.

Gradients are computed at the rounded weights and applied to the float weights (the straight-through estimator, Bengio
et al. 2013, 1308.3432; for language models LLM-QAT, Liu et al. 2023, 2305.17888). The optimizer updates the rounded
weights; after each step the update is added to the float weights, which are rounded again.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modeling.layers.integer_grid import IntegerGrid, round_trip
from modeling.transformer import Transformer


def weight_grids(model: Transformer, grid: IntegerGrid, table: IntegerGrid) -> dict[str, IntegerGrid]:
    """Parameter name -> grid: `grid` for the decoder layers' matrices, `table` for embedding and head, once if tied."""
    matrices = {
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)
    }
    names = [name for name, _ in model.named_parameters() if name in matrices]
    return {name: grid if name.startswith("layers.") else table for name in names}


class QuantizationAwareTraining:
    """Keeps a network's weights rounded during training."""

    def __init__(self, model: Transformer, grids: Mapping[str, IntegerGrid]) -> None:
        """Round the parameters named in `grids`, in place."""
        self._grids = grids
        self._floats = {name: model.get_parameter(name).detach().clone() for name in grids}
        self._rounded = {name: round_trip(self._floats[name], grid) for name, grid in grids.items()}
        self._load_rounded(model)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """State to save besides the network; loaded in place before an interrupted training resumes."""
        floats = {f"float.{name}": tensor for name, tensor in self._floats.items()}
        return floats | {f"rounded.{name}": tensor for name, tensor in self._rounded.items()}

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """Add the optimizer's update to the float weights, and round them again."""
        for name, grid in self._grids.items():
            update = model.get_parameter(name) - self._rounded[name]
            if not grid.offset:
                update *= self._floats[name] != 0  # pruned weights stay zero
            self._floats[name] += update
            self._rounded[name].copy_(round_trip(self._floats[name], grid))
        self._load_rounded(model)

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Set the network's parameters to the float weights, which round to the trained ones."""
        for name, floats in self._floats.items():
            model.get_parameter(name).copy_(floats)

    @torch.no_grad()
    def _load_rounded(self, model: nn.Module) -> None:
        for name, rounded in self._rounded.items():
            model.get_parameter(name).copy_(rounded)
