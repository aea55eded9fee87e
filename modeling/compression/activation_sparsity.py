"""Activation sparsity of the feed-forwards, and training for more of it (ProSparse, 2402.13516, section 3).

- `measure_zeros`: share of zeros of each feed-forward on sample text
- `use_sparse_feed_forwards`: replaces all feed-forwards by `SparseFeedForward`s, which skip zeros
- `RisingPenalty`, `with_penalty`: an L1 penalty on activations whose weight rises until enough of them are zero
- `choose_thresholds`: the threshold of each feed-forward up to which activations are zero (FATReLU)
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from modeling.feed_forward import FeedForward
from modeling.layers.sparse_feed_forward import SparseFeedForward, thresholded_relu
from modeling.loss.cross_entropy import TrainingLoss
from modeling.training.data_parallel import SummedOverProcesses
from modeling.training.gradients import LossFunction
from modeling.transformer import Transformer

Callback = Callable[[str, Tensor], None]
"""Receives a feed-forward's name and its values before the activation, (..., neurons)."""
BATCH_ROWS = 16
THRESHOLD_VALUES = 1 << 20
"""Values of a feed-forward from which its threshold is chosen."""
SMOOTHING = 0.9
"""Decay per step of the moving average of the share of zeros that controls the penalty."""
STEPS_DOWN = 4
"""Steps down the curve for one up: dead neurons seldom become active again, so that an excess would persist."""


def feed_forwards(model: nn.Module) -> dict[str, FeedForward | SparseFeedForward]:
    """All feed-forwards by name, including those of experts."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, FeedForward | SparseFeedForward)
    }


def use_sparse_feed_forwards(model: Transformer) -> None:
    """Replace all `FeedForward`s by `SparseFeedForward`s of threshold 0: the same function, with their tensors."""
    for name, module in feed_forwards(model).items():
        if isinstance(module, FeedForward):
            model.set_submodule(name, SparseFeedForward.from_feed_forward(module))


@torch.no_grad()
def measure_zeros(model: Transformer, tokens: Tensor, batch_rows: int = BATCH_ROWS) -> dict[str, float]:
    """Share of activations that are zero, by the feed-forward's name; without experts that have no tokens.

    Args:
        model: any network, also int8.
        tokens: (rows, tokens) int64.
        batch_rows: rows in one forward pass.
    """
    zeros: dict[str, int] = {}
    values: dict[str, int] = {}
    thresholds = _thresholds(model)

    def count(name: str, before: Tensor) -> None:
        zeros[name] = zeros.get(name, 0) + int((before <= thresholds[name]).sum())
        values[name] = values.get(name, 0) + before.numel()

    with _observed(model, count):
        for batch in torch.split(tokens, batch_rows):
            model.hidden_states(batch)
    return {name: zeros[name] / values[name] for name in zeros if values[name]}


@torch.no_grad()
def choose_thresholds(model: Transformer, tokens: Tensor, target: float, largest: float = math.inf) -> dict[str, float]:
    """Set the threshold of each feed-forward at which `target` of its activations are zero on these tokens.

    Each is chosen with the thresholds before it in effect, in one pass over all tokens. It is 0 if enough activations
    are zero without it.

    Args:
        model: with `SparseFeedForward`s; changed in place.
        tokens: (rows, tokens) int64.
        target: share of zeros, 0 to 1.
        largest: upper limit of the thresholds, even if fewer activations are then zero.

    Returns:
        The thresholds by name.
    """
    modules = feed_forwards(model)

    def choose(name: str, before: Tensor) -> None:
        # The stride is odd: an even one could pick the same neurons of every token.
        values = before.flatten()[:: max(1, before.numel() // THRESHOLD_VALUES) | 1].float()
        if len(values):
            value = float(values.kthvalue(max(1, math.ceil(target * len(values)))).values)
            modules[name].threshold = min(max(value, 0.0), largest)

    for module in modules.values():
        assert isinstance(module, SparseFeedForward), "only SparseFeedForwards have thresholds"
        module.threshold = 0.0
    with _observed(model, choose):
        model.hidden_states(tokens)
    return _thresholds(model)


class RisingPenalty(SummedOverProcesses):
    """Mean activation, as a share of what it was before, times a weight that rises until enough activations are zero.

    ProSparse's weight rises in predefined stages along half a cosine (2402.13516, equation 6); here it moves up such a
    curve while zeros are too few, and down again while they are too many. The position on the curve is a buffer:
    attached to the network, it is saved and loaded with it.
    """

    level: Tensor
    zeros: Tensor
    scales: Tensor
    seen: Tensor

    def __init__(self, largest: float, steps: int, target: float, scales: dict[str, float]) -> None:
        """Start at weight 0.

        Args:
            largest: weight at the curve's end, in nats if all activations are as before.
            steps: optimizer steps from its beginning to its end.
            target: share of zeros above which the weight falls.
            scales: mean activation before, by the feed-forward's name; from `mean_activations`.
        """
        super().__init__()
        self.largest, self.steps, self.target = largest, max(1, steps), target
        self._indices = {name: index for index, name in enumerate(scales)}
        self.register_buffer("level", torch.zeros((), dtype=torch.int64))
        self.register_buffer("zeros", torch.zeros(()))
        self.register_buffer("scales", torch.tensor(list(scales.values())).clamp_min(torch.finfo(torch.float32).tiny))
        # Sums since the last step: share of zeros times rows, and rows. Zero whenever the network is saved.
        self.register_buffer("seen", torch.zeros(2), persistent=False)

    @property
    def weight(self) -> float:
        """Present weight of the penalty."""
        return self.largest * (1 - math.cos(math.pi * int(self.level) / self.steps)) / 2

    def forward(self, activations: dict[str, tuple[Tensor, Tensor]], rows: int = 1) -> Tensor:
        """Penalty in nats, scalar, of a batch of `rows`, from (mean activation, share of zeros) by name."""
        indices = [self._indices[name] for name in activations]
        means, zeros = (torch.stack(values).float() for values in zip(*activations.values(), strict=True))
        self.seen += rows * torch.stack([zeros.mean(), zeros.new_ones(())])
        return self.weight * (means / self.scales[indices]).mean()

    def advance(self, model: nn.Module) -> None:
        """Move up or down the curve after an optimizer step, of one batch or several."""
        if self.add_up is not None:
            self.add_up(self.seen)
        if self.seen[1] > 0:
            decay = SMOOTHING if self.level > 0 else 0.0
            self.zeros.mul_(decay).add_((1 - decay) * self.seen[0] / self.seen[1])
            self.seen.zero_()
        self.level.add_(1 if self.zeros < self.target else -STEPS_DOWN).clamp_(1, self.steps)

    @contextmanager
    def attached(self, model: Transformer) -> Iterator[None]:
        """Make it a part of the network's state in this context."""
        model.add_module("activation_penalty", self)
        try:
            yield
        finally:
            del model.activation_penalty


def with_penalty(loss_function: LossFunction, penalty: RisingPenalty) -> LossFunction:
    """A loss function whose total includes the penalty; the reported cross-entropy does not."""

    def loss(model: nn.Module, tokens: Tensor, z_loss: float) -> TrainingLoss:
        activations: dict[str, tuple[Tensor, Tensor]] = {}
        thresholds = _thresholds(model)

        def record(name: str, before: Tensor) -> None:
            if before.numel():
                active = thresholded_relu(before, thresholds[name])
                activations[name] = (active.mean(), (active == 0).float().mean().detach())

        with _observed(model, record):
            plain = loss_function(model, tokens, z_loss)
        return TrainingLoss(plain.total + penalty(activations, len(tokens)), plain.cross_entropy)

    return loss


@torch.no_grad()
def mean_activations(model: Transformer, tokens: Tensor) -> dict[str, float]:
    """Mean activation by the feed-forward's name, on (rows, tokens) int64; 1 for an expert without tokens."""
    thresholds = _thresholds(model)
    means = dict.fromkeys(thresholds, 1.0)

    def record(name: str, before: Tensor) -> None:
        if before.numel():
            means[name] = float(thresholded_relu(before, thresholds[name]).mean())

    with _observed(model, record):
        model.hidden_states(tokens)
    return means


def _thresholds(model: nn.Module) -> dict[str, float]:
    return {
        name: module.threshold if isinstance(module, SparseFeedForward) else 0.0
        for name, module in feed_forwards(model).items()
    }


@contextmanager
def _observed(model: nn.Module, callback: Callback) -> Iterator[None]:
    """Call back for each feed-forward before its activation; int8 kernels for few rows make no such call."""

    def hook(name: str) -> Any:
        return lambda module, arguments, before: callback(name, before)

    handles = [module.up.register_forward_hook(hook(name)) for name, module in feed_forwards(model).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
