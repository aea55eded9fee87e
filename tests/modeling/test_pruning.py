import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.optimizer import build_adamw
from modeling.pruning import apply_masks, cubic_sparsity, linear_weights, magnitude_masks
from modeling.training_step import training_step
from tests.modeling.networks import random_tokens, small_network


@settings(max_examples=20, deadline=None)
@given(sparsity=st.floats(0, 1))
def test_exactly_the_smallest_weights_go(sparsity):
    model = small_network()
    masks = magnitude_masks(model, sparsity)
    for name, weight in linear_weights(model).items():
        kept, dropped = weight[masks[name]].abs(), weight[~masks[name]].abs()
        assert len(dropped) == round(sparsity * weight.numel())
        assert not len(kept) or not len(dropped) or dropped.max() <= kept.min()


def test_only_the_layers_matrices_are_pruned():
    model = small_network()
    before = copy.deepcopy(model)
    apply_masks(model, magnitude_masks(model, 1.0))
    for name, parameter in model.named_parameters():
        if name.startswith("layers.") and parameter.ndim == 2:
            assert not parameter.any(), name
        else:
            assert torch.equal(parameter, before.get_parameter(name)), name


def test_zeros_hold_through_recovery_and_later_rounds_add_to_them():
    model, tokens = small_network(), random_tokens(4, 13)
    optimizer = build_adamw(model, 1e-2, (0.9, 0.95), 0.0)
    first = magnitude_masks(model, 0.4)
    apply_masks(model, first)
    for _ in range(3):
        training_step(model, optimizer, [tokens], 1e-2, 1.0, "fp32")
        apply_masks(model, first)
    for name, weight in linear_weights(model).items():
        assert not weight[~first[name]].any()
    second = magnitude_masks(model, 0.6)
    for name in first:
        assert not (second[name] & ~first[name]).any()


def test_golden_cubic_schedule():
    # 0.8 (1 - (1 - t / 4)^3): 1 - 27/64, 1 - 8/64, 1 - 1/64, 1.
    assert [cubic_sparsity(round, 4, 0.8) for round in range(1, 5)] == pytest.approx([0.4625, 0.7, 0.7875, 0.8])
