"""What a network's activations say of its parts, measured on calibration windows.

- `Moments`: means and covariance of a vector, and what part of it predicts the rest
- `Activations`, `measure`: of a whole network, on which a student's parts are chosen
- `norm_moments`: of what the norms give in a teacher and will give in its student
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
"""Added to the covariance, as a share of its mean diagonal: fewer calibration tokens lean on the prior."""


class Moments:
    """Mean and covariance of row vectors, added up in float64."""

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
        """Affine least squares of some numbers by others, drawn to a prior (ridge regression).

        Args:
            targets: (t,) int64, numbers to predict.
            inputs: (i,) int64, by which.
            prior: (t, i), the matrix where little was measured, but for its scale, which is fitted.

        Returns:
            matrix (t, i) and offset (t,) float64.
        """
        covariance = self.covariance
        among = covariance[inputs][:, inputs]
        ridge = RIDGE * among.diagonal().mean() + torch.finfo(torch.float32).tiny
        across = covariance[targets][:, inputs]
        scale = (prior * across).sum() / (prior @ among * prior).sum() if self.count else 1.0
        across = across + ridge * scale * prior
        among = among + ridge * torch.eye(len(inputs), dtype=torch.float64)
        matrix = torch.linalg.solve(among, across.T).T
        return matrix, self.mean[targets] - matrix @ self.mean[inputs]


@dataclass
class LayerActivations:
    """Of one decoder layer."""

    heads: Moments
    """What the heads mixed, before the output matrix: (heads x head_width)."""
    neurons: dict[str, Moments] = field(default_factory=dict)
    """Name of each `FeedForward` in the layer, such as "experts.3" or "" -> its neurons after the ReLU."""
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
    """Of a whole network."""

    layers: list[LayerActivations]
    channels: Tensor
    """(width,) float64: sum over norms and tokens of the magnitude of each number a norm gives, by which Minitron ranks
    the residual stream's channels (Muralidharan et al. 2024, 2407.14679, 2.2)."""
    stream: Moments
    """Of the residual stream as the norms see it: mean 0 and variance 1 in each token, of all norms together."""


def measure(model: Transformer, calibration: Tensor) -> Activations:
    """Run a float network over calibration windows (rows, tokens) int64."""
    width, epsilon = model.config.width, model.config.norm_epsilon
    found = Activations(
        [LayerActivations(Moments(width)) for _ in model.layers],
        torch.zeros(width, dtype=torch.float64),
        Moments(width),
    )
    before: dict[nn.Module, Any] = {}
    after: dict[nn.Module, Any] = {}
    for layer, own in zip(layers_of(model), found.layers, strict=True):
        before[layer.attention.output] = lambda inputs, own=own: own.heads.add(inputs)
        after[layer] = lambda inputs, outputs, own=own: own.compare(inputs, outputs[0])
        for name, feed_forward in feed_forwards(layer).items():
            neurons = own.neurons[name] = Moments(feed_forward.down.in_features)
            before[feed_forward.down] = neurons.add
    for norm in norms(model).values():
        after[norm] = lambda inputs, outputs: _see_norm(found, inputs, outputs, epsilon)
    _watch(model, calibration, before, after)
    return found


def norm_moments(model: Transformer, calibration: Tensor, project: Callable[[Tensor], Tensor]) -> dict[str, Moments]:
    """Of each norm by name: what it gives, and behind it what a norm of the projected stream would give.

    Args:
        model: the teacher, `width` numbers in its residual stream.
        calibration: (rows, tokens) int64.
        project: (..., width) -> (..., student's width).
    """
    narrow = project(model.final_norm.weight.detach()[None]).shape[-1]
    found = {name: Moments(model.config.width + narrow) for name in norms(model)}

    def see(moments: Moments, inputs: Tensor, outputs: Tensor) -> None:
        moments.add(torch.cat([outputs, standardized(project(inputs), model.config.norm_epsilon)], -1))

    after: dict[nn.Module, Any] = {
        norm: lambda inputs, outputs, moments=found[name]: see(moments, inputs, outputs)
        for name, norm in norms(model).items()
    }
    _watch(model, calibration, {}, after)
    return found


def norms(model: Transformer) -> dict[str, nn.LayerNorm]:
    """All norms of the residual stream by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}


def feed_forwards(layer: DecoderLayer) -> dict[str, FeedForward]:
    """Name below `feed_forward` -> each feed-forward, one or many; "" where it is the layer's own."""
    modules = layer.feed_forward.named_modules()
    return {name: module for name, module in modules if isinstance(module, FeedForward)}


def standardized(stream: Tensor, epsilon: float) -> Tensor:
    """A norm without weight and bias."""
    return F.layer_norm(stream, stream.shape[-1:], eps=epsilon)


def _see_norm(found: Activations, inputs: Tensor, outputs: Tensor, epsilon: float) -> None:
    found.channels += outputs.abs().sum((0, 1), dtype=torch.float64).cpu()
    found.stream.add(standardized(inputs, epsilon))


@torch.no_grad()
def _watch(
    model: Transformer, calibration: Tensor, before: Mapping[nn.Module, Any], after: Mapping[nn.Module, Any]
) -> None:
    """Run the network; `before` of a module is given its input, `after` its input and output."""
    device = model.final_norm.weight.device
    was_training = model.training
    model.eval()
    with _hooks(before, after):
        for rows in torch.split(calibration.to(device), BATCH_ROWS):
            model.hidden_states(rows)
    model.train(was_training)


@contextmanager
def _hooks(before: Mapping[nn.Module, Any], after: Mapping[nn.Module, Any]) -> Iterator[None]:
    def forwarded(see: Any) -> Any:
        return lambda _, inputs, outputs: see(inputs[0], outputs)

    def called(see: Any) -> Any:
        return lambda _, inputs: see(inputs[0])

    handles = [module.register_forward_pre_hook(called(see)) for module, see in before.items()]
    handles += [module.register_forward_hook(forwarded(see)) for module, see in after.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def layers_of(model: Transformer) -> list[DecoderLayer]:
    """The decoder layers, as the type checker knows them."""
    return list(model.layers)  # type: ignore[arg-type]
