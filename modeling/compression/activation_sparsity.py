"""How many activations of the feed-forwards are zero, and how to train for more (ProSparse, 2402.13516, section 3).

- `measure_zeros`: per feed-forward, on sample text
- `use_sparse_feed_forwards`: puts the kind whose zeros save time in place of all feed-forwards
- `RisingPenalty`, `with_penalty`: an L1 penalty on activations whose weight rises until enough of them are zero
- `choose_thresholds`: the threshold of each feed-forward below which activations are cut off (FATReLU)
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

Watcher = Callable[[str, Tensor], None]
"""Told of a feed-forward's name and its values before the activation, (..., neurons)."""
BATCH_ROWS = 16
THRESHOLD_VALUES = 1 << 20
"""Values of one feed-forward that its threshold is chosen from."""
SMOOTHING = 0.9
"""Of the share of zeros that the penalty goes by, from step to step."""
FALLS_FASTER = 4
"""Steps down the curve for one up: neurons that have died seldom come back, so that going too far is not undone."""


def feed_forwards(model: nn.Module) -> dict[str, FeedForward | SparseFeedForward]:
    """All feed-forwards by name, those of experts among them."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, FeedForward | SparseFeedForward)
    }


def use_sparse_feed_forwards(model: Transformer) -> None:
    """Put `SparseFeedForward`s of threshold 0 in place of all `FeedForward`s: the same function, with their tensors."""
    for name, module in feed_forwards(model).items():
        if isinstance(module, FeedForward):
            model.set_submodule(name, SparseFeedForward.from_feed_forward(module))


@torch.no_grad()
def measure_zeros(model: Transformer, tokens: Tensor, batch_rows: int = BATCH_ROWS) -> dict[str, float]:
    """Share of activations that are zero, by the feed-forward's name; an expert without tokens is left out.

    Args:
        model: any network; int8 too.
        tokens: (rows, tokens) int64.
        batch_rows: rows in one forward pass.
    """
    zeros: dict[str, int] = {}
    values: dict[str, int] = {}
    thresholds = _thresholds(model)

    def count(name: str, before: Tensor) -> None:
        zeros[name] = zeros.get(name, 0) + int((before <= thresholds[name]).sum())
        values[name] = values.get(name, 0) + before.numel()

    with _watched(model, count):
        for batch in torch.split(tokens, batch_rows):
            model.hidden_states(batch)
    return {name: zeros[name] / values[name] for name in zeros if values[name]}


@torch.no_grad()
def choose_thresholds(model: Transformer, tokens: Tensor, target: float, largest: float = math.inf) -> dict[str, float]:
    """Give each feed-forward the threshold at which `target` of its activations are zero on these tokens.

    Each is chosen behind those before it, in one pass over all tokens. One that has enough zeros anyway gets 0.

    Args:
        model: with `SparseFeedForward`s; changed in place.
        tokens: (rows, tokens) int64.
        target: share of zeros, 0 to 1.
        largest: no threshold is above it, even if fewer activations are then zero.

    Returns:
        The thresholds by name.
    """
    modules = feed_forwards(model)

    def choose(name: str, before: Tensor) -> None:
        # Of an odd stride, or it might take the same neurons of every token.
        values = before.flatten()[:: max(1, before.numel() // THRESHOLD_VALUES) | 1].float()
        if len(values):
            value = float(values.kthvalue(max(1, math.ceil(target * len(values)))).values)
            modules[name].threshold = min(max(value, 0.0), largest)

    for module in modules.values():
        assert isinstance(module, SparseFeedForward), "thresholds are those of SparseFeedForwards"
        module.threshold = 0.0
    with _watched(model, choose):
        model.hidden_states(tokens)
    return _thresholds(model)


class RisingPenalty(SummedOverProcesses):
    """Mean activation, as a share of what it was before, times a weight that rises until enough activations are zero.

    ProSparse's weight rises in stages that are set beforehand and end as half a cosine (2402.13516, equation 6); here
    it goes up such a curve while zeros are missing, and down again where there are more than wanted. Where it stands is
    a buffer: attached to the network, it is saved and read with it.
    """

    level: Tensor
    zeros: Tensor
    scales: Tensor
    seen: Tensor

    def __init__(self, largest: float, steps: int, target: float, scales: dict[str, float]) -> None:
        """Start at weight 0.

        Args:
            largest: weight at the curve's end, in nats where all activations are as before.
            steps: optimizer steps from its beginning to its end.
            target: share of zeros above which the weight falls.
            scales: mean activation before, by the feed-forward's name; from `mean_activations`.
        """
        super().__init__()
        self.largest, self.steps, self.target = largest, max(1, steps), target
        self._places = {name: place for place, name in enumerate(scales)}
        self.register_buffer("level", torch.zeros((), dtype=torch.int64))
        self.register_buffer("zeros", torch.zeros(()))
        self.register_buffer("scales", torch.tensor(list(scales.values())).clamp_min(torch.finfo(torch.float32).tiny))
        # Since the last step: share of zeros times rows, and rows. Zero whenever the network is saved.
        self.register_buffer("seen", torch.zeros(2), persistent=False)

    @property
    def weight(self) -> float:
        """Of the penalty, now."""
        return self.largest * (1 - math.cos(math.pi * int(self.level) / self.steps)) / 2

    def of(self, found: dict[str, tuple[Tensor, Tensor]], rows: int = 1) -> Tensor:
        """The penalty in nats, scalar, from (mean activation, share of zeros) by name, of a batch of `rows`."""
        places = [self._places[name] for name in found]
        means, zeros = (torch.stack(one).float() for one in zip(*found.values(), strict=True))
        self.seen += rows * torch.stack([zeros.mean(), zeros.new_ones(())])
        return self.weight * (means / self.scales[places]).mean()

    def advance(self, model: nn.Module) -> None:
        """After an optimizer step, of one batch or several: go up or down the curve."""
        if self.add_up is not None:
            self.add_up(self.seen)
        if self.seen[1] > 0:
            kept = SMOOTHING if self.level > 0 else 0.0
            self.zeros.mul_(kept).add_((1 - kept) * self.seen[0] / self.seen[1])
            self.seen.zero_()
        self.level.add_(1 if self.zeros < self.target else -FALLS_FASTER).clamp_(1, self.steps)

    @contextmanager
    def attached(self, model: Transformer) -> Iterator[None]:
        """While it is a part of the network's state; afterwards the network is as before."""
        model.add_module("activation_penalty", self)
        try:
            yield
        finally:
            del model.activation_penalty


def with_penalty(loss_of: LossFunction, penalty: RisingPenalty) -> LossFunction:
    """The loss with the penalty added to what is minimized; the cross-entropy that is told stays the text's."""

    def loss(model: nn.Module, tokens: Tensor, z_loss: float) -> TrainingLoss:
        found: dict[str, tuple[Tensor, Tensor]] = {}
        thresholds = _thresholds(model)

        def note(name: str, before: Tensor) -> None:
            if before.numel():
                active = thresholded_relu(before, thresholds[name])
                found[name] = (active.mean(), (active == 0).float().mean().detach())

        with _watched(model, note):
            plain = loss_of(model, tokens, z_loss)
        return TrainingLoss(plain.total + penalty.of(found, len(tokens)), plain.cross_entropy)

    return loss


@torch.no_grad()
def mean_activations(model: Transformer, tokens: Tensor) -> dict[str, float]:
    """Mean activation by the feed-forward's name, on (rows, tokens) int64; 1 for an expert without tokens."""
    thresholds = _thresholds(model)
    found = dict.fromkeys(thresholds, 1.0)

    def note(name: str, before: Tensor) -> None:
        if before.numel():
            found[name] = float(thresholded_relu(before, thresholds[name]).mean())

    with _watched(model, note):
        model.hidden_states(tokens)
    return found


def _thresholds(model: nn.Module) -> dict[str, float]:
    return {
        name: module.threshold if isinstance(module, SparseFeedForward) else 0.0
        for name, module in feed_forwards(model).items()
    }


@contextmanager
def _watched(model: nn.Module, watcher: Watcher) -> Iterator[None]:
    """While it is told of every feed-forward of many rows, before the feed-forward goes on."""

    def hook(name: str) -> Any:
        return lambda module, given, before: watcher(name, before)

    handles = [module.up.register_forward_hook(hook(name)) for name, module in feed_forwards(model).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
