"""AdamW over the right parameters, and the learning rate's schedule."""

import math
from operator import itemgetter

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from modeling.initialization import epsilon_scale, learning_rate_scale, weight_decay_scale
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

EPSILON = 1e-8
"""Added to the root of the second moment (Adam, Kingma and Ba 2014, 1412.6980, algorithm 1)."""


def build_adamw(
    model: nn.Module, learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, 1711.05101) by the rules of `modeling.initialization`.

    Parameters that these treat alike share a group, the decayed groups first: two groups in the standard
    parametrisation. Each group has its `learning_rate_scale`, which `training_step` multiplies into the rate it sets.
    One fused kernel updates all tensors: a third of the time of the loop over them on CPU.

    Args:
        model: a `Transformer`, wrapped or not; any other module is trained by the standard rules.
        learning_rate: until `training_step` sets it; at the base shape, if the network has one.
        betas: decay rates of the first and second moment.
        weight_decay: share of a weight taken per step, times the learning rate; at the base shape as well.
    """
    groups: dict[tuple[float, float, float, bool], list[nn.Parameter]] = {}
    for network, config in _networks(model):
        for name, parameter in network.named_parameters():
            rate, decay = learning_rate_scale(name, parameter, config), weight_decay_scale(name, parameter, config)
            alike = (decay, rate, epsilon_scale(name, config), isinstance(parameter, DTensor))
            groups.setdefault(alike, []).append(parameter)
    settings = [
        {
            "params": parameters,
            "lr": learning_rate * rate,
            "learning_rate_scale": rate,
            "weight_decay": weight_decay * decay,
            "eps": EPSILON * epsilon,
        }
        for (decay, rate, epsilon, _), parameters in sorted(groups.items(), key=itemgetter(0), reverse=True)
    ]
    return torch.optim.AdamW(settings, lr=learning_rate, betas=betas, fused=True)


def _networks(model: nn.Module) -> list[tuple[nn.Module, TransformerConfig]]:
    """The network without its wrapper, or its stages, whose parameters have the names that the rules go by."""
    found: list[tuple[nn.Module, TransformerConfig]] = [
        (module, module.config) for module in model.modules() if isinstance(module, Transformer)
    ]
    return found or [(model, TransformerConfig(vocabulary_size=2))]  # no scale depends on a shape without a base


def cosine_with_warmup(step: int, peak: float, floor: float, warmup_steps: int, total_steps: int) -> float:
    """Learning rate of a step: linear warm-up to the peak, then half a cosine (Loshchilov and Hutter 2017, 1608.03983).

    Args:
        step: 1 for the first step, `total_steps` for the last.
        peak: rate at step `warmup_steps`.
        floor: rate at the last step.
        warmup_steps: steps of warm-up; 0 for none.
        total_steps: steps in all.
    """
    if step <= warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return floor + (peak - floor) * (1 + math.cos(math.pi * progress)) / 2
