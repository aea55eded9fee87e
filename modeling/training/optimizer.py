"""Optimizers with parameter groups by the rules of `modeling.initialization`.

- `build_optimizer`: optimizer by name
- `build_adamw`: AdamW (Loshchilov and Hutter 2019, 1711.05101)
- `trained_by_muon`: whether Muon trains a parameter
- `CombinedOptimizer`: several optimizers with their own parameters as a single one

Each group has a `learning_rate_scale`, by which `training_step` multiplies the learning rate. No group mixes DTensors
with plain tensors, a requirement of fused and foreach kernels.
"""

import math
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, get_args, overload

import torch
from torch import nn
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor

from modeling.initialization import epsilon_scale, is_outside_layers, learning_rate_scale, weight_decay_scale
from modeling.training.kinds import OptimizerKind, Precision
from modeling.training.muon import Muon
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

EPSILON = 1e-8
"""Added to the root of the second moment (Adam, Kingma and Ba 2014, 1412.6980, algorithm 1)."""

Optimizer = torch.optim.Optimizer
"""Type of `build_optimizer`'s result; its `state` may be written before the first step, which then uses it."""


class _Treatment(NamedTuple):
    """Settings of a parameter; parameters with the same settings form a group."""

    decay: float
    """Factor on the weight decay."""
    rate: float
    """Factor on the learning rate."""
    epsilon: float = 0.0
    """Factor on epsilon; 0 if the optimizer has none."""
    head_width: int = 0
    """For Muon: rows per head of query, key and value, if a matrix has all three; else 0."""


_Rule = Callable[[str, nn.Parameter, TransformerConfig], _Treatment | None]
"""Function from a parameter and its name to its settings, or None if the optimizer does not train it."""


def build_optimizer(
    model: nn.Module,
    kind: OptimizerKind,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    momentum: float,
    precision: Precision = "fp32",
    sharers: ProcessGroup | None = None,
    embedding_rate: float = 1.0,
) -> Optimizer:
    """Build the optimizer `kind`.

    - `adamw`: see `build_adamw`.
    - `muon`: `modeling.training.muon.Muon` for the matrices inside the layers, AdamW for all other parameters, with the
      same learning rate and weight decay. Queries, keys and values are three matrices of a single parameter.
    - `sgd`: SGD with heavy-ball momentum. Its weight decay is a part of the gradient (L2), so momentum multiplies it,
      like the learning rate, by 1 / (1 - momentum). The scales of a `base_width` are those of Adam, whose steps do not
      grow with the gradient: with SGD the learning rate does not transfer.

    Args:
        model: a `Transformer`, wrapped or not; any other module is trained by the standard rules.
        kind: name of the optimizer.
        learning_rate: initial learning rate, which `training_step` overwrites; at the base shape, if there is one.
        betas: decay rates of AdamW's first and second moment.
        weight_decay: decay per step, multiplied by the learning rate; at the base shape, if there is one.
        momentum: momentum of SGD or Muon; 0.95 is usual for Muon.
        precision: of the training; bf16 is that of Muon's products too.
        sharers: processes that share out Muon's work, see `Muon`.
        embedding_rate: factor on the learning rate of embedding and head, tied or not, and of their projections.

    Raises:
        ValueError: if there is no such optimizer.
    """
    match kind:
        case "adamw":
            return build_adamw(model, learning_rate, betas, weight_decay, embedding_rate)
        case "muon":
            return _build_muon(model, learning_rate, betas, weight_decay, momentum, precision, sharers, embedding_rate)
        case "sgd":
            groups = _groups(model, _sgd_treatment, learning_rate, weight_decay, embedding_rate)
            return torch.optim.SGD(groups, momentum=momentum)
    raise ValueError(f"optimizer is {kind!r}; accepted are {', '.join(get_args(OptimizerKind))}")


def build_adamw(
    model: nn.Module,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    embedding_rate: float = 1.0,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, 1711.05101) by the rules of `modeling.initialization`.

    Groups with weight decay come first; the standard parametrization has two groups. A fused kernel updates all
    tensors, in a third of the time of a loop over them on CPU.

    Args:
        model: a `Transformer`, wrapped or not; any other module is trained by the standard rules.
        learning_rate: initial learning rate, which `training_step` overwrites; at the base shape, if there is one.
        betas: decay rates of the first and second moment.
        weight_decay: decay per step, multiplied by the learning rate; at the base shape, if there is one.
        embedding_rate: as in `build_optimizer`.
    """
    groups = _groups(model, _adamw_treatment, learning_rate, weight_decay, embedding_rate)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)


def trained_by_muon(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix between hidden states: of attention, feed-forwards or experts.

    Excludes embeddings, head and routers, whose inputs or outputs are not hidden states (Jordan 2024; Moonlight,
    2502.16982).
    """
    is_matrix = parameter.ndim == 2 and name.endswith("weight")
    return is_matrix and not name.startswith(("embedding.", "head.")) and not name.endswith("router.weight")


def _build_muon(
    model: nn.Module,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    momentum: float,
    precision: Precision,
    sharers: ProcessGroup | None,
    embedding_rate: float,
) -> Optimizer:
    def others(name: str, parameter: nn.Parameter, config: TransformerConfig) -> _Treatment | None:
        return None if trained_by_muon(name, parameter) else _adamw_treatment(name, parameter, config)

    optimizers: list[Optimizer] = []
    if matrices := _groups(model, _muon_treatment, learning_rate, weight_decay):
        products = torch.bfloat16 if precision == "bf16" else torch.float32
        optimizers.append(Muon(matrices, learning_rate, momentum, weight_decay, products, sharers))
    if remaining := _groups(model, others, learning_rate, weight_decay, embedding_rate):
        optimizers.append(torch.optim.AdamW(remaining, lr=learning_rate, betas=betas, fused=True))
    return CombinedOptimizer(optimizers)


def _groups(
    model: nn.Module, rule: _Rule, learning_rate: float, weight_decay: float, embedding_rate: float = 1.0
) -> list[dict[str, Any]]:
    """Parameter groups by the settings of `rule`, those with weight decay first."""
    groups: dict[tuple[_Treatment, bool], list[nn.Parameter]] = {}
    for network, config in _networks(model):
        for name, parameter in network.named_parameters():
            treatment = rule(name, parameter, config)
            if treatment is not None:
                if is_outside_layers(name):
                    treatment = treatment._replace(rate=treatment.rate * embedding_rate)
                groups.setdefault((treatment, isinstance(parameter, DTensor)), []).append(parameter)
    ordered = sorted(groups.items(), key=itemgetter(0), reverse=True)
    return [
        _group_settings(treatment, learning_rate, weight_decay) | {"params": parameters}
        for (treatment, _), parameters in ordered
    ]


def _group_settings(treatment: _Treatment, learning_rate: float, weight_decay: float) -> dict[str, Any]:
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
    """With m = width / base_width: rate times 1 / sqrt(m), decay times sqrt(m); for AdamW the factors are 1/m and m.

    Feature learning is independent of width if the spectral norm of an update scales as sqrt(fan out / fan in),
    constant if both grow (Yang, Simon and Bernstein 2023, 2310.17813). A Muon update with the root mean square of
    AdamW's has a spectral norm that scales as sqrt(width), because all its singular values are equal; AdamW's has few,
    which scale as width. Over widths 32 to 256, the outputs of matrices after 8 steps scaled at most as width^0.06 with
    this rule, and as width^0.47 with the same rate for all widths.
    """
    if not trained_by_muon(name, parameter):
        return None
    decay, rate = weight_decay_scale(name, parameter, config), learning_rate_scale(name, parameter, config)
    has_heads = name.endswith("query_key_value.weight")
    head_width = config.width // config.heads if has_heads else 0
    return _Treatment(math.sqrt(decay), math.sqrt(rate), head_width=head_width)


def _networks(model: nn.Module) -> list[tuple[nn.Module, TransformerConfig]]:
    """The unwrapped network, or its pipeline stages, with the parameter names that the rules use."""
    networks: list[tuple[nn.Module, TransformerConfig]] = [
        (module, module.config) for module in model.modules() if isinstance(module, Transformer)
    ]
    return networks or [(model, TransformerConfig(vocabulary_size=2))]  # without a base shape, scales are constant


class CombinedOptimizer(Optimizer):
    """Steps several optimizers in turn.

    `param_groups` and `state` are the same objects as those of the optimizers, not copies, so that changes of either
    affect both. The order of the parameters is that of the optimizers.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        """Combine optimizers with disjoint parameters, before their first step.

        Raises:
            ValueError: if two share a parameter, or there is no optimizer.
        """
        self.optimizers = list(optimizers)
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
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
        """Step each optimizer; the closure, if there is one, is called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def _share(self) -> None:
        """Set groups and state of the optimizers to this one's; loading creates new ones."""
        first = 0
        for optimizer in self.optimizers:
            end = first + len(optimizer.param_groups)
            optimizer.param_groups, optimizer.state, first = self.param_groups[first:end], self.state, end
