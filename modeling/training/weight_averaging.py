"""Averages of weights: of several checkpoints, or kept along with training.

- `uniform_average`: the mean of states (stochastic weight averaging: Izmailov et al. 2018, 1803.05407; of the latest
  checkpoints of a language model: Kaddour 2022, 2209.14981)
- `greedy_average`: the mean of those that help (greedy soup: Wortsman et al. 2022, 2203.05482, recipe 1)
- `ExponentialAverage`: of the weights that are on this process, step by step

A state is a mapping of parameter names to tensors.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from modeling.training.gradients import local
from modeling.transformer import Transformer

Weights = Mapping[str, Tensor]
Key = TypeVar("Key")

UPDATES = "updates"
"""Name, in an `ExponentialAverage`'s state, of how many updates it has had."""


def uniform_average(states: Iterable[Weights]) -> dict[str, Tensor]:
    """The mean of states, each read once: one running mean and one state are held at a time.

    Args:
        states: at least one, all with the same names and shapes, floats of any dtype.

    Returns:
        New tensors; float64 where the first state's are, else float32.

    Raises:
        ValueError: where there is no state, the names differ or a tensor holds no floats.
    """
    mean: dict[str, Tensor] | None = None
    for count, state in enumerate(states, start=1):
        if mean is None:
            mean = {name: _precise(name, tensor) for name, tensor in state.items()}
            continue
        _check_names(mean, state)
        for name, tensor in mean.items():
            tensor.lerp_(state[name].detach().to(tensor), 1 / count)
    if mean is None:
        raise ValueError("an average needs at least one state; there is none")
    return mean


class GreedyAverage(NamedTuple, Generic[Key]):
    """What `greedy_average` found."""

    members: tuple[Key, ...]
    """The candidates in the average, the best one first."""
    weights: dict[str, Tensor]
    loss: float
    """Of the average; not above the best candidate's."""
    losses: dict[Key, float]
    """Of each candidate alone, the best one first."""


def greedy_average(
    candidates: Iterable[Key], load: Callable[[Key], Weights], loss_of: Callable[[Weights], float]
) -> GreedyAverage[Key]:
    """Average candidates from the best on; each is kept where the average with it is not worse than without.

    Each candidate is loaded twice, and three states are held at a time. Where candidates are equally good, the one
    that was named first comes first.

    Args:
        candidates: at least one.
        load: gives a candidate's state; names and shapes are the same for all.
        loss_of: of a state, on data that the result is not reported on; NaN counts as infinite.

    Raises:
        ValueError: as `uniform_average`.
    """

    def loss(state: Weights) -> float:
        value = loss_of(state)
        return math.inf if math.isnan(value) else value

    alone = {candidate: loss(load(candidate)) for candidate in candidates}
    losses = dict(sorted(alone.items(), key=lambda entry: entry[1]))
    if not losses:
        raise ValueError("an average needs at least one candidate; there is none")
    best, *others = losses
    members, weights, least = [best], uniform_average([load(best)]), losses[best]
    for candidate in others:
        with_it = _blend(weights, load(candidate), 1 / (len(members) + 1))
        found = loss(with_it)
        if found <= least:
            members, weights, least = [*members, candidate], with_it, found
    return GreedyAverage(tuple(members), weights, least, losses)


class ExponentialAverage:
    """a <- d a + (1 - d) w after each step t = 0, 1, ... with d = min(decay, (1 + t) / (10 + t)).

    The second term lets the average forget the first weights quickly, as the running averages of TensorFlow
    (tf.train.ExponentialMovingAverage, `num_updates`) and timm do. It works on what this process has of each parameter,
    whole or as the local part of a DTensor: workers exchange nothing. It costs 4 bytes a parameter and one pass over
    them a step.
    """

    def __init__(self, model: nn.Module, half_life: float) -> None:
        """Begin at the model's weights.

        Args:
            model: a `Transformer`, wrapped, cut or a list of pipeline stages; any other module, or its
                DistributedDataParallel, as well.
            half_life: steps after which a step's weights count half; decay = 0.5^(1 / half_life).

        Raises:
            ValueError: for a half-life of 0 or less.
        """
        if half_life <= 0:
            raise ValueError(f"the half-life of an exponential average is {half_life:g} steps; it must be more than 0")
        self.decay: float = 0.5 ** (1 / half_life)
        self.state: dict[str, Tensor] = {
            name: parameter.detach().clone().float() for name, parameter in _named_parameters(model)
        }
        """Parameter name -> float32 average, a DTensor where the parameter is one; and `UPDATES` -> int64 (), so that
        one that is read back from a checkpoint, in place, goes on as it would have."""
        self.state[UPDATES] = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of the same model, after a step."""
        updates = int(self.state[UPDATES])
        decay = min(self.decay, (1 + updates) / (10 + updates))
        parameters = dict(_named_parameters(model))
        averages = [local(self.state[name]) for name in parameters]
        weights = [local(parameter.detach()).float() for parameter in parameters.values()]
        torch._foreach_lerp_(averages, weights, 1 - decay)
        self.state[UPDATES] += 1


def _named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """By their names in the network, whatever is around it."""
    networks: list[nn.Module] = [module for module in model.modules() if isinstance(module, Transformer)]
    if not networks:
        networks = [model.module if isinstance(model, DistributedDataParallel) else model]
    for network in networks:
        yield from network.named_parameters()


def _precise(name: str, tensor: Tensor) -> Tensor:
    """A copy in at least float32."""
    if not tensor.is_floating_point():
        raise ValueError(f"the tensor {name} holds {tensor.dtype}; only floats can be averaged")
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32), copy=True)


def _blend(mean: Weights, state: Weights, share: float) -> dict[str, Tensor]:
    """A new (1 - share) mean + share state."""
    _check_names(mean, state)
    return {name: tensor.lerp(state[name].detach().to(tensor), share) for name, tensor in mean.items()}


def _check_names(mean: Weights, state: Weights) -> None:
    if mean.keys() != state.keys():
        odd = sorted(mean.keys() ^ state.keys())
        raise ValueError(f"the states to average have different weights: {', '.join(odd[:3])} are not in both")
