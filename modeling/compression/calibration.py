"""Statistics of the inputs of linear layers on sample text, for pruning, factorization and quantization.

- `InputStatistics`: count, sum and Gram matrix of the inputs of one linear layer
- `walk_layers`: statistics layer by layer, each measured after the changed layers before it
- `layer_influence`: change of the residual stream by each decoder layer
- `damped_cholesky`: Cholesky factor of second moments that may be singular
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention.multi_head import LayerContext
from modeling.transformer import Transformer

BATCH_ROWS = 16
LayerInputs = list[tuple[Tensor, LayerContext]]
"""Batches of a decoder layer's arguments: hidden states (rows, tokens, width) and the context of all layers."""


@dataclass
class InputStatistics:
    """Sums over all tokens that reached a linear layer, float64."""

    rows: int
    """Tokens; 0 for an expert without tokens."""
    total: Tensor
    """(inputs,)."""
    gram: Tensor
    """(inputs, inputs), sum of x x^T."""

    @classmethod
    def empty(cls, inputs: int, device: torch.device) -> "InputStatistics":
        """Statistics of no tokens."""
        zeros = torch.zeros(inputs, inputs + 1, dtype=torch.float64, device=device)
        return cls(0, zeros[:, -1].clone(), zeros[:, :-1].clone())

    def add(self, inputs: Tensor) -> None:
        """Add (..., inputs), in float64: in float32, large inputs would round away the products of small ones."""
        flat = inputs.detach().flatten(0, -2).double()
        self.rows += len(flat)
        self.total += flat.sum(0)
        self.gram += flat.T @ flat

    @property
    def mean(self) -> Tensor:
        """(inputs,); 0 without tokens."""
        return self.total / max(self.rows, 1)

    @property
    def second_moment(self) -> Tensor:
        """(inputs, inputs), mean of x x^T; 0 without tokens."""
        return self.gram / max(self.rows, 1)

    @property
    def covariance(self) -> Tensor:
        """(inputs, inputs), about the mean; 0 without tokens."""
        return self.second_moment - torch.outer(self.mean, self.mean)

    @property
    def norms(self) -> Tensor:
        """(inputs,), L2 norm of each input over the tokens."""
        return self.gram.diagonal().clamp_min(0).sqrt()


def walk_layers(
    model: Transformer, tokens: Tensor, batch_rows: int = BATCH_ROWS
) -> Iterator[tuple[str, nn.Module, dict[str, InputStatistics]]]:
    """Each decoder layer with the statistics of its linear layers' inputs.

    The caller may change a layer before it requests the next: the layer is then run again, so that later layers are
    measured after the change (SparseGPT, Frantar and Alistarh 2023, 2301.00774, section 4). One layer's statistics are
    held at a time.

    Args:
        model: any network whose linear layers are float; in evaluation mode.
        tokens: (rows, tokens) int64, calibration windows.
        batch_rows: windows in one forward pass.

    Yields:
        The layer's name in the network, the layer, and statistics by the name of each `nn.Linear` in the network,
        including those inside low-rank layers.
    """
    batches = _first_layer_inputs(model, tokens, batch_rows)
    for index, layer in enumerate(model.layers):
        name = f"layers.{index}"
        yield name, layer, _linear_statistics(layer, name, batches)
        batches = [(_run(layer, hidden, context), context) for hidden, context in batches]


def layer_influence(model: Transformer, tokens: Tensor, batch_rows: int = BATCH_ROWS) -> Tensor:
    """1 - cosine of each layer's input and output, the mean over tokens (ShortGPT, Men et al. 2024, 2403.03853, eq. 1).

    Args:
        model: in evaluation mode.
        tokens: (rows, tokens) int64, calibration windows.
        batch_rows: windows in one forward pass.

    Returns:
        (layers,) float32.
    """
    batches, influence = _first_layer_inputs(model, tokens, batch_rows), []
    for layer in model.layers:
        outputs = [(_run(layer, hidden, context), context) for hidden, context in batches]
        similarity = [
            F.cosine_similarity(before, after, dim=-1).flatten()
            for (before, _), (after, _) in zip(batches, outputs, strict=True)
        ]
        influence.append(1 - torch.cat(similarity).mean())
        batches = outputs
    return torch.stack(influence)


def damped_cholesky(moments: Tensor, damping: float) -> Tensor:
    """Lower Cholesky factor, float64, of a symmetric matrix (n, n) >= 0 after damping its diagonal.

    Args:
        moments: second moments or a covariance; the identity is used if all are zero.
        damping: added to the diagonal, as a share of its mean; more if the matrix is still singular.
    """
    moments = moments.double()
    mean = moments.diagonal().mean()
    if mean <= 0:
        return torch.eye(len(moments), dtype=torch.float64, device=moments.device)
    while True:
        damped = moments + damping * mean * torch.eye(len(moments)).to(moments)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            assert isinstance(lower, Tensor)
            return lower
        damping = max(10 * damping, 1e-12)


@torch.no_grad()
def _first_layer_inputs(model: Transformer, tokens: Tensor, batch_rows: int) -> LayerInputs:
    assert not model.training, "statistics are those of evaluation mode"
    inputs: LayerInputs = []
    handle = model.layers[0].register_forward_pre_hook(
        lambda module, arguments: inputs.append((arguments[0], arguments[1]))
    )
    try:
        for batch in torch.split(tokens.to(model.final_norm.weight.device), batch_rows):
            model.hidden_states(batch)
    finally:
        handle.remove()
    return inputs


@torch.no_grad()
def _linear_statistics(layer: nn.Module, name: str, batches: LayerInputs) -> dict[str, InputStatistics]:
    statistics: dict[str, InputStatistics] = {}
    handles = []
    for inner, module in layer.named_modules():
        if isinstance(module, nn.Linear):
            own = statistics[f"{name}.{inner}"] = InputStatistics.empty(module.in_features, module.weight.device)
            handles.append(module.register_forward_pre_hook(_add_inputs(own)))
    try:
        for hidden, context in batches:
            layer(hidden, context)
    finally:
        for handle in handles:
            handle.remove()
    return statistics


def _add_inputs(statistics: InputStatistics) -> Any:
    return lambda module, arguments: statistics.add(arguments[0])


@torch.no_grad()
def _run(layer: nn.Module, hidden: Tensor, context: LayerContext) -> Tensor:
    output: Tensor = layer(hidden, context)[0]
    return output
