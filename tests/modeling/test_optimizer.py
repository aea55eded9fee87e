import math

import pytest
import torch
from torch import nn

from modeling.initialization import epsilon_scale, learning_rate_scale, weight_decay_scale
from modeling.optimizer import EPSILON, build_adamw, cosine_with_warmup
from tests.modeling.networks import small_network

BASE = {"base_width": 8, "base_layers": 1}
"""A quarter of the small network's width and half its layers."""


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("base", [{}, BASE])
def test_decay_shrinks_matrices_and_nothing_else(tied, base):
    """By the same share at any shape: where the rate falls, the decay grows."""
    model = small_network(tied_embeddings=tied, **base)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build_adamw(model, learning_rate=0.5, betas=(0.9, 0.95), weight_decay=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        is_matrix = (name.startswith("layers.") and parameter.ndim == 2) or name == "head.weight"
        torch.testing.assert_close(parameter.detach(), before[name] * (1 - 0.5 * 0.1 if is_matrix else 1))


def test_the_first_step_is_as_long_as_the_scaled_rate():
    model = small_network(**BASE)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build_adamw(model, learning_rate=0.5, betas=(0.9, 0.95), weight_decay=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        is_hidden = name.startswith("layers.") and parameter.ndim == 2
        torch.testing.assert_close(parameter.detach(), before[name] - (0.5 / 4 if is_hidden else 0.5))


class Wrapper(nn.Module):
    """As DistributedDataParallel, it puts `module.` before all names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("wrap", [lambda model: model, Wrapper])
def test_every_parameter_is_in_one_group_with_its_own_settings(wrap, tied):
    model = small_network(tied_embeddings=tied, **BASE)
    optimizer = build_adamw(wrap(model), learning_rate=0.5, betas=(0.8, 0.9), weight_decay=0.1)
    assert optimizer.defaults["fused"]
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(groups) == len([*model.parameters()])
    for name, parameter in model.named_parameters():
        group, config = groups[id(parameter)], model.config
        rate = learning_rate_scale(name, parameter, config)
        assert group["learning_rate_scale"] == rate
        assert group["lr"] == 0.5 * rate
        assert group["weight_decay"] == 0.1 * weight_decay_scale(name, parameter, config)
        assert group["eps"] == EPSILON * epsilon_scale(name, config)
        assert group["betas"] == (0.8, 0.9)


@pytest.mark.parametrize("decay", [0.1, 0.0])
def test_the_standard_parametrisation_has_two_groups(decay):
    """In the order that saved optimizer states have: the decayed ones, then the others, each by their names' order."""
    model = small_network()
    optimizer = build_adamw(model, learning_rate=0.5, betas=(0.9, 0.95), weight_decay=decay)
    matrices = {name: one for name, one in model.named_parameters() if one.ndim == 2 and name != "embedding.weight"}
    others = [one for name, one in model.named_parameters() if name not in matrices]
    first, second = optimizer.param_groups
    assert [*map(id, first["params"])] == [*map(id, matrices.values())]
    assert [*map(id, second["params"])] == [*map(id, others)]
    assert (first["weight_decay"], second["weight_decay"]) == (decay, 0)
    assert first["learning_rate_scale"] == second["learning_rate_scale"] == 1


def test_any_module_is_trained_by_the_standard_rules():
    module = nn.Linear(3, 2)
    first, second = build_adamw(module, learning_rate=0.5, betas=(0.9, 0.95), weight_decay=0.1).param_groups
    assert first["params"] == [module.weight]
    assert second["params"] == [module.bias]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (1, 0.25),  # a quarter of the warm-up
        (4, 1.0),  # its end
        (6, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),  # a quarter of the cosine: cos(pi / 4)
        (8, 0.55),  # its middle, half way between peak and floor
        (12, 0.1),  # the last step
    ],
)
def test_golden_learning_rates(step, expected):
    assert cosine_with_warmup(step, peak=1.0, floor=0.1, warmup_steps=4, total_steps=12) == pytest.approx(expected)


def test_schedules_without_warmup_and_of_warmup_alone():
    assert cosine_with_warmup(5, peak=2.0, floor=0.0, warmup_steps=0, total_steps=10) == pytest.approx(1.0)
    assert cosine_with_warmup(3, peak=2.0, floor=0.0, warmup_steps=3, total_steps=3) == pytest.approx(2.0)
