import math

import pytest
import torch

from modeling.optimizer import build_adamw, cosine_with_warmup
from tests.modeling.networks import small_network


@pytest.mark.parametrize("tied", [True, False])
def test_decay_shrinks_matrices_and_nothing_else(tied):
    model = small_network(tied_embeddings=tied)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build_adamw(model, learning_rate=0.5, betas=(0.9, 0.95), weight_decay=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        is_matrix = (name.startswith("layers.") and parameter.ndim == 2) or name == "head.weight"
        torch.testing.assert_close(parameter.detach(), before[name] * (1 - 0.5 * 0.1 if is_matrix else 1))


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
