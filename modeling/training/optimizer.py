"""The optimizer over the right parameters, in groups that the rules of `modeling.initialization` treat alike.

- `build_optimizer`: by its name
- `build_adamw`: AdamW (Loshchilov and Hutter 2019, 1711.05101)
- `trained_by_muon`: which parameters Muon takes
- `CombinedOptimizer`: several optimizers, each over its own parameters, that look like one

Every group has its `learning_rate_scale`, which `training_step` multiplies into the rate it sets. No group mixes
DTensors with plain tensors, as fused and foreach kernels need it.
"""

import math
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, get_args, overload

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from modeling.initialization import epsilon_scale, learning_rate_scale, weight_decay_scale
from modeling.training.kinds import OptimizerKind
from modeling.training.muon import Muon
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

EPSILON = 1e-8
"""Added to the root of the second moment (Adam, Kingma and Ba 2014, 1412.6980, algorithm 1)."""

Optimizer = torch.optim.Optimizer
"""Whatever `build_optimizer` gives: its `state` may be written before the first step, which then uses it."""


class _Treatment(NamedTuple):
    """How a parameter is trained; those with the same treatment share a group."""

    decay: float
    """Factor on the weight decay."""
    rate: float
    """Factor on the learning rate."""
    epsilon: float = 0.0
    """Factor on epsilon; 0 where the optimizer has none."""
    head_width: int = 0
    """For Muon: rows of a head's query, key and value each, where a matrix has all three; else 0."""


_Rule = Callable[[str, nn.Parameter, TransformerConfig], _Treatment | None]
"""From a parameter's name to its treatment, or None where the optimizer does not train it."""


def build_optimizer(
    model: nn.Module,
    kind: OptimizerKind,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    momentum: float,
) -> Optimizer:
    """The optimizer of that name.

    - `adamw`: see `build_adamw`.
    - `muon`: `modeling.training.muon.Muon` for the matrices inside the layers, AdamW for all else, with one learning
      rate and weight decay. Queries, keys and values are three matrices to it, though they are one parameter.
    - `sgd`: with heavy-ball momentum. Its weight decay is a part of the gradient (L2), so momentum multiplies it as it
      does the learning rate, by 1 / (1 - momentum). The scales of a `base_width` are those of Adam, whose steps do not
      grow with the gradient: under SGD the learning rate does not transfer.

    Args:
        model: a `Transformer`, wrapped or not; any other module is trained by the standard rules.
        kind: its name.
        learning_rate: until `training_step` sets it; at the base shape, if the network has one.
        betas: decay rates of AdamW's first and second moment.
        weight_decay: share of a weight taken per step, times the learning rate; at the base shape as well.
        momentum: of SGD or Muon; 0.95 is Muon's usual one.

    Raises:
        ValueError: where there is no optimizer of that name.
    """
    match kind:
        case "adamw":
            return build_adamw(model, learning_rate, betas, weight_decay)
        case "muon":
            return _build_muon(model, learning_rate, betas, weight_decay, momentum)
        case "sgd":
            return torch.optim.SGD(_groups(model, _sgd_treatment, learning_rate, weight_decay), momentum=momentum)
    raise ValueError(f"there is no optimizer {kind!r}; it can be {', '.join(get_args(OptimizerKind))}")


def build_adamw(
    model: nn.Module, learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, 1711.05101) by the rules of `modeling.initialization`.

    The decayed groups come first: two groups in all in the standard parametrization. One fused kernel updates all
    tensors: a third of the time of the loop over them on CPU.

    Args:
        model: a `Transformer`, wrapped or not; any other module is trained by the standard rules.
        learning_rate: until `training_step` sets it; at the base shape, if the network has one.
        betas: decay rates of the first and second moment.
        weight_decay: share of a weight taken per step, times the learning rate; at the base shape as well.
    """
    groups = _groups(model, _adamw_treatment, learning_rate, weight_decay)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)


def trained_by_muon(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix between hidden states: of attention, feed-forwards and experts.

    Not embeddings, the head and routers, one side of which is no hidden state (Jordan 2024; Moonlight, 2502.16982).
    """
    is_matrix = parameter.ndim == 2 and name.endswith("weight")
    return is_matrix and not name.startswith(("embedding.", "head.")) and not name.endswith("router.weight")


def _build_muon(
    model: nn.Module, learning_rate: float, betas: tuple[float, float], weight_decay: float, momentum: float
) -> Optimizer:
    def others(name: str, parameter: nn.Parameter, config: TransformerConfig) -> _Treatment | None:
        return None if trained_by_muon(name, parameter) else _adamw_treatment(name, parameter, config)

    parts: list[Optimizer] = []
    if matrices := _groups(model, _muon_treatment, learning_rate, weight_decay):
        parts.append(Muon(matrices, learning_rate, momentum, weight_decay))
    if rest := _groups(model, others, learning_rate, weight_decay):
        parts.append(torch.optim.AdamW(rest, lr=learning_rate, betas=betas, fused=True))
    return CombinedOptimizer(parts)


def _groups(model: nn.Module, rule: _Rule, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """The groups of parameters that the rule treats alike, the decayed ones first."""
    groups: dict[tuple[_Treatment, bool], list[nn.Parameter]] = {}
    for network, config in _networks(model):
        for name, parameter in network.named_parameters():
            treatment = rule(name, parameter, config)
            if treatment is not None:
                groups.setdefault((treatment, isinstance(parameter, DTensor)), []).append(parameter)
    ordered = sorted(groups.items(), key=itemgetter(0), reverse=True)
    return [_settings(one, learning_rate, weight_decay) | {"params": members} for (one, _), members in ordered]


def _settings(treatment: _Treatment, learning_rate: float, weight_decay: float) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "lr": learning_rate * treatment.rate,
        "learning_rate_scale": treatment.rate,
        "weight_decay": weight_decay * treatment.decay,
    }
    if treatment.epsilon:
        settings["eps"] = EPSILON * treatment.epsilon
    if treatment.head_width:
        settings["head_width"] = treatment.head_width
    return settings


def _adamw_treatment(name: str, parameter: nn.Parameter, config: TransformerConfig) -> _Treatment:
    return _Treatment(
        weight_decay_scale(name, parameter, config),
        learning_rate_scale(name, parameter, config),
        epsilon_scale(name, config),
    )


def _sgd_treatment(name: str, parameter: nn.Parameter, config: TransformerConfig) -> _Treatment:
    return _Treatment(weight_decay_scale(name, parameter, config), learning_rate_scale(name, parameter, config))


def _muon_treatment(name: str, parameter: nn.Parameter, config: TransformerConfig) -> _Treatment | None:
    """With m = width / base_width: the rate times 1 / sqrt(m), the decay times sqrt(m), where AdamW has 1/m and m.

    Features learn alike at any width if the spectral norm of an update goes as sqrt(fan out / fan in), which stays when
    both grow (Yang, Simon and Bernstein 2023, 2310.17813). That of an update with the root mean square of AdamW's goes
    as sqrt(width): all its singular values are alike, where AdamW's are few and go as the width. Over widths 32 to 256,
    the outputs of matrices after 8 steps grew as at most width^0.06 so, and as width^0.47 with the same rate at all.
    """
    if not trained_by_muon(name, parameter):
        return None
    decay, rate = weight_decay_scale(name, parameter, config), learning_rate_scale(name, parameter, config)
    has_heads = name.endswith("query_key_value.weight")
    head_width = config.width // config.heads if has_heads else 0
    return _Treatment(math.sqrt(decay), math.sqrt(rate), head_width=head_width)


def _networks(model: nn.Module) -> list[tuple[nn.Module, TransformerConfig]]:
    """The network without its wrapper, or its stages, whose parameters have the names that the rules go by."""
    found: list[tuple[nn.Module, TransformerConfig]] = [
        (module, module.config) for module in model.modules() if isinstance(module, Transformer)
    ]
    return found or [(model, TransformerConfig(vocabulary_size=2))]  # no scale depends on a shape without a base


class CombinedOptimizer(Optimizer):
    """Steps its parts in turn.

    `param_groups` and `state` are those of the parts, the same objects and not copies: what is set or written in either
    place acts in both. The order of the parameters is that of the parts.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        """Combine optimizers that have not taken a step, none with a parameter of another.

        Raises:
            ValueError: where two share a parameter, or there is none.
        """
        self.parts = list(parts)
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in `Optimizer`."""
        super().load_state_dict(state_dict)
        self._share()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Step each part; the closure, if there is one, is called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def _share(self) -> None:
        """Give the parts this one's groups and state, as loading makes new ones."""
        first = 0
        for part in self.parts:
            end = first + len(part.param_groups)
            part.param_groups, part.state, first = self.param_groups[first:end], self.state, end
