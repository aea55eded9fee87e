"""Weight averaging: over several checkpoints, or during training.

- `uniform_average`: mean of states (stochastic weight averaging: Izmailov et al. 2018, 1803.05407; of the latest
  checkpoints of a language model: Kaddour 2022, 2209.14981)
- `greedy_average`: mean of the states that improve it (greedy soup: Wortsman et al. 2022, 2203.05482, recipe 1)
- `ExponentialAverage`: exponential moving average of this process's weights

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
"""Name of the number of updates in the state of an `ExponentialAverage`."""


def uniform_average(states: Iterable[Weights]) -> dict[str, Tensor]:
    """Mean of states, each read once; a running mean and one state are in memory at a time.

    Args:
        states: at least one state; all have the same names and shapes, with floats of any dtype.

    Returns:
        New tensors; float64 if those of the first state are, else float32.

    Raises:
        ValueError: if there is no state, names differ or a tensor is not floating-point.
    """
    mean: dict[str, Tensor] | None = None
    for count, state in enumerate(states, start=1):
        if mean is None:
            mean = {name: _float32_copy(name, tensor) for name, tensor in state.items()}
            continue
        _check_names(mean, state)
        for name, tensor in mean.items():
            tensor.lerp_(state[name].detach().to(tensor), 1 / count)
    if mean is None:
        raise ValueError("there is no state to average; at least one is required")
    return mean


class GreedyAverage(NamedTuple, Generic[Key]):
    """Result of `greedy_average`."""

    members: tuple[Key, ...]
    """Candidates in the average, the best first."""
    weights: dict[str, Tensor]
    loss: float
    """Loss of the average; at most that of the best candidate."""
    losses: dict[Key, float]
    """Loss of each candidate alone, the best first."""


def greedy_average(
    candidates: Iterable[Key], load: Callable[[Key], Weights], loss: Callable[[Weights], float]
) -> GreedyAverage[Key]:
    """Average candidates from the best to the worst; each is included if the average does not get worse.

    Each candidate is loaded twice, and three states are in memory at a time. Equally good candidates keep their order.

    Args:
        candidates: at least one candidate.
        load: reads the state of a candidate; names and shapes are the same for all.
        loss: loss of a state, on other data than the result is reported on; NaN counts as infinite.

    Raises:
        ValueError: as `uniform_average`.
    """

    def finite_loss(state: Weights) -> float:
        value = loss(state)
        return math.inf if math.isnan(value) else value

    unsorted = {candidate: finite_loss(load(candidate)) for candidate in candidates}
    losses = dict(sorted(unsorted.items(), key=lambda item: item[1]))
    if not losses:
        raise ValueError("there is no candidate to average; at least one is required")
    best, *others = losses
    members, weights, lowest = [best], uniform_average([load(best)]), losses[best]
    for candidate in others:
        average = _blend(weights, load(candidate), 1 / (len(members) + 1))
        average_loss = finite_loss(average)
        if average_loss <= lowest:
            members, weights, lowest = [*members, candidate], average, average_loss
    return GreedyAverage(tuple(members), weights, lowest, losses)


class ExponentialAverage:
    """a <- d a + (1 - d) w after each step t = 0, 1, ... with d = min(decay, (1 + t) / (10 + t)).

    The second term lets the average forget the initial weights quickly, as in TensorFlow
    (tf.train.ExponentialMovingAverage, `num_updates`) and timm. It averages this process's part of each parameter,
    whole or the local part of a DTensor, without communication. It costs 4 bytes per parameter and a pass over them per
    step.
    """

    def __init__(self, model: nn.Module, half_life: float) -> None:
        """Start with the model's weights.

        Args:
            model: a `Transformer`, wrapped, parallelized or a list of pipeline stages; or any other module, or its
                DistributedDataParallel.
            half_life: steps after which the weight of a step is halved; decay = 0.5^(1 / half_life).

        Raises:
            ValueError: if the half-life is 0 or less.
        """
        if half_life <= 0:
            raise ValueError(f"half_life is {half_life:g} steps; accepted are positive numbers")
        self.decay: float = 0.5 ** (1 / half_life)
        self.state: dict[str, Tensor] = {
            name: parameter.detach().clone().float() for name, parameter in _named_parameters(model)
        }
        """Parameter name -> float32 average, a DTensor if the parameter is one; and `UPDATES` -> int64 (), so that an
        average read from a checkpoint, in place, continues exactly."""
        self.state[UPDATES] = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update with the model's weights after a step."""
        updates = int(self.state[UPDATES])
        decay = min(self.decay, (1 + updates) / (10 + updates))
        parameters = dict(_named_parameters(model))
        averages = [local(self.state[name]) for name in parameters]
        weights = [local(parameter.detach()).float() for parameter in parameters.values()]
        torch._foreach_lerp_(averages, weights, 1 - decay)
        self.state[UPDATES] += 1


def _named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters by their names in the unwrapped network."""
    networks: list[nn.Module] = [module for module in model.modules() if isinstance(module, Transformer)]
    if not networks:
        networks = [model.module if isinstance(model, DistributedDataParallel) else model]
    for network in networks:
        yield from network.named_parameters()


def _float32_copy(name: str, tensor: Tensor) -> Tensor:
    """A copy in at least float32."""
    if not tensor.is_floating_point():
        raise ValueError(f"the tensor {name} has dtype {tensor.dtype}; accepted are only floats")
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32), copy=True)


def _blend(mean: Weights, state: Weights, share: float) -> dict[str, Tensor]:
    """(1 - share) mean + share state, as new tensors."""
    _check_names(mean, state)
    return {name: tensor.lerp(state[name].detach().to(tensor), share) for name, tensor in mean.items()}


def _check_names(mean: Weights, state: Weights) -> None:
    if mean.keys() != state.keys():
        names = sorted(mean.keys() ^ state.keys())
        raise ValueError(f"the states to average have different tensors: {', '.join(names[:3])} are not in both")
