"""Activation statistics of a network on calibration windows.

- `Moments`: mean and covariance of a vector, and the linear prediction of some channels from others
- `Activations`, `measure`: statistics of a whole network, by which a student's parts are selected
- `norm_moments`: joint statistics of the norms' outputs in a teacher and in its student
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.feed_forward import FeedForward
from modeling.transformer import DecoderLayer, Transformer

BATCH_ROWS = 8
RIDGE = 1e-2
"""Ridge added to the covariance, as a share of its mean diagonal; with few tokens the prior dominates."""


class Moments:
    """Mean and covariance of row vectors, accumulated in float64."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Add vectors (..., width) of any float type."""
        rows = rows.reshape(-1, rows.shape[-1]).float()
        self.count += len(rows)
        self._sum += rows.sum(0, dtype=torch.float64).cpu()
        self._products += (rows.T @ rows).double().cpu()

    @property
    def mean(self) -> Tensor:
        """(width,) float64."""
        return self._sum / max(self.count, 1)

    @property
    def covariance(self) -> Tensor:
        """(width, width) float64."""
        return self._products / max(self.count, 1) - torch.outer(self.mean, self.mean)

    def prediction(self, targets: Tensor, inputs: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Affine least squares prediction of some channels from others, with a prior (ridge regression).

        Args:
            targets: (t,) int64, indices of the channels to predict.
            inputs: (i,) int64, indices of the channels to predict from.
            prior: (t, i), prior of the matrix up to its scale, which is fitted.

        Returns:
            matrix (t, i) and offset (t,) float64.
        """
        covariance = self.covariance
        input_covariance = covariance[inputs][:, inputs]
        ridge = RIDGE * input_covariance.diagonal().mean() + torch.finfo(torch.float32).tiny
        cross_covariance = covariance[targets][:, inputs]
        scale = (prior * cross_covariance).sum() / (prior @ input_covariance * prior).sum() if self.count else 1.0
        cross_covariance = cross_covariance + ridge * scale * prior
        input_covariance = input_covariance + ridge * torch.eye(len(inputs), dtype=torch.float64)
        matrix = torch.linalg.solve(input_covariance, cross_covariance.T).T
        return matrix, self.mean[targets] - matrix @ self.mean[inputs]


@dataclass
class LayerActivations:
    """Statistics of a decoder layer."""

    heads: Moments
    """Outputs of the heads, before the output matrix: (heads x head_width)."""
    neurons: dict[str, Moments] = field(default_factory=dict)
    """Name of each `FeedForward` in the layer, such as "experts.3" or "" -> activations of its neurons."""
    _change: float = 0.0
    _tokens: int = 0

    @property
    def influence(self) -> float:
        """Mean of 1 - cosine between the residual stream before and after (ShortGPT, 2403.03853, equation 1)."""
        return self._change / max(self._tokens, 1)

    def compare(self, before: Tensor, after: Tensor) -> None:
        """Add to the influence."""
        self._change += float((1 - F.cosine_similarity(before.float(), after.float(), dim=-1)).sum())
        self._tokens += before.shape[0] * before.shape[1]


@dataclass
class Activations:
    """Statistics of a whole network."""

    layers: list[LayerActivations]
    channels: Tensor
    """(width,) float64: sum over norms and tokens of the magnitude of each channel of the norms' outputs, by which
    Minitron ranks the channels of the residual stream (Muralidharan et al. 2024, 2407.14679, section 2.2)."""
    stream: Moments
    """Moments of the normalized residual stream (mean 0 and variance 1 in each token), over all norms."""


def measure(model: Transformer, calibration: Tensor) -> Activations:
    """Run a float network over calibration windows (rows, tokens) int64."""
    width, epsilon = model.config.width, model.config.norm_epsilon
    statistics = Activations(
        [LayerActivations(Moments(width)) for _ in model.layers],
        torch.zeros(width, dtype=torch.float64),
        Moments(width),
    )
    before: dict[nn.Module, Any] = {}
    after: dict[nn.Module, Any] = {}
    for layer, own in zip(layers_of(model), statistics.layers, strict=True):
        before[layer.attention.output] = lambda inputs, own=own: own.heads.add(inputs)
        after[layer] = lambda inputs, outputs, own=own: own.compare(inputs, outputs[0])
        for name, feed_forward in feed_forwards(layer).items():
            neurons = own.neurons[name] = Moments(feed_forward.down.in_features)
            before[feed_forward.down] = neurons.add
    for norm in norms(model).values():
        after[norm] = lambda inputs, outputs: _add_norm(statistics, inputs, outputs, epsilon)
    _run_with_hooks(model, calibration, before, after)
    return statistics


def norm_moments(model: Transformer, calibration: Tensor, project: Callable[[Tensor], Tensor]) -> dict[str, Moments]:
    """Moments of each norm by name: its output, followed by the normalized projection of its input.

    Args:
        model: the teacher.
        calibration: (rows, tokens) int64.
        project: projection of the residual stream, (..., width) -> (..., student's width).
    """
    narrow = project(model.final_norm.weight.detach()[None]).shape[-1]
    moments_by_name = {name: Moments(model.config.width + narrow) for name in norms(model)}

    def add(moments: Moments, inputs: Tensor, outputs: Tensor) -> None:
        moments.add(torch.cat([outputs, standardized(project(inputs), model.config.norm_epsilon)], -1))

    after: dict[nn.Module, Any] = {
        norm: lambda inputs, outputs, moments=moments_by_name[name]: add(moments, inputs, outputs)
        for name, norm in norms(model).items()
    }
    _run_with_hooks(model, calibration, {}, after)
    return moments_by_name


def norms(model: Transformer) -> dict[str, nn.LayerNorm]:
    """All norms of the residual stream by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}


def feed_forwards(layer: DecoderLayer) -> dict[str, FeedForward]:
    """Feed-forwards of a layer by their names in `feed_forward`; "" for a dense layer, several for experts."""
    modules = layer.feed_forward.named_modules()
    return {name: module for name, module in modules if isinstance(module, FeedForward)}


def standardized(stream: Tensor, epsilon: float) -> Tensor:
    """LayerNorm without weight and bias."""
    return F.layer_norm(stream, stream.shape[-1:], eps=epsilon)


def _add_norm(statistics: Activations, inputs: Tensor, outputs: Tensor, epsilon: float) -> None:
    statistics.channels += outputs.abs().sum((0, 1), dtype=torch.float64).cpu()
    statistics.stream.add(standardized(inputs, epsilon))


@torch.no_grad()
def _run_with_hooks(
    model: Transformer, calibration: Tensor, before: Mapping[nn.Module, Any], after: Mapping[nn.Module, Any]
) -> None:
    """Run the network with callbacks per module: `before` receives the input, `after` input and output."""
    device = model.final_norm.weight.device
    was_training = model.training
    model.eval()
    with _hooks(before, after):
        for rows in torch.split(calibration.to(device), BATCH_ROWS):
            model.hidden_states(rows)
    model.train(was_training)


@contextmanager
def _hooks(before: Mapping[nn.Module, Any], after: Mapping[nn.Module, Any]) -> Iterator[None]:
    def pre_hook(callback: Any) -> Any:
        return lambda _, inputs: callback(inputs[0])

    def hook(callback: Any) -> Any:
        return lambda _, inputs, outputs: callback(inputs[0], outputs)

    handles = [module.register_forward_pre_hook(pre_hook(callback)) for module, callback in before.items()]
    handles += [module.register_forward_hook(hook(callback)) for module, callback in after.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def layers_of(model: Transformer) -> list[DecoderLayer]:
    """Decoder layers, typed."""
    return list(model.layers)  # type: ignore[arg-type]
