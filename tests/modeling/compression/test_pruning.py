import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.errors import ConfigError
from modeling.compression.calibration import InputStatistics
from modeling.compression.low_rank import factorize
from modeling.compression.pruning import (
    apply_masks,
    cubic_sparsity,
    linear_weights,
    magnitude_masks,
    prune,
    wanda_mask,
    zero_masks,
)
from modeling.compression.sparsity import GroupSparsity
from modeling.export.model_files import model_from_files, model_to_files
from modeling.replacements import rebuild, replacements_of
from modeling.training.optimizer import build_adamw
from modeling.training.step import training_step
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


GROUPS = GroupSparsity(2, 4)


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("low_rank", [False, True])
def test_every_criterion_gives_groups_and_shares_and_says_its_masks(criterion, low_rank):
    tokens = random_tokens(6, 20)
    for sparsity in (GROUPS, 0.75):
        model = small_network()
        if low_rank:
            model = factorize(model, 1.5, tokens)
            model = factorize_to_even_ranks(model)
        masks = prune(model, sparsity, criterion, tokens)
        assert masks.keys() == linear_weights(model).keys()
        for name, weight in linear_weights(model).items():
            assert torch.equal(weight != 0, masks[name])
            if isinstance(sparsity, GroupSparsity):
                assert (masks[name].unflatten(1, (-1, 4)).sum(-1) == 2).all()
            else:
                assert int((~masks[name]).sum()) == pytest.approx(0.75 * weight.numel(), abs=len(weight))
        later = prune(model, 0.875, criterion, tokens)
        assert not any((later[name] & ~masks[name]).any() for name in masks), "zeros do not come back"
        assert zero_masks(model).keys() == masks.keys()


def factorize_to_even_ranks(model):
    """Ranks that groups of 4 divide."""
    state, replacements = model.state_dict(), replacements_of(model)
    for name, one in replacements.items():
        rank = one["rank"] = max(4, one["rank"] // 4 * 4)
        state[f"{name}.down.weight"] = torch.randn(rank, one["inputs"])
        state[f"{name}.up.weight"] = torch.randn(one["outputs"], rank)
    return rebuild(model.config, replacements, state)


def test_golden_wanda():
    weight = torch.tensor([[1.0, 3.0], [4.0, 1.0]])
    statistics = InputStatistics.empty(2, weight.device)
    statistics.add(torch.tensor([[8.0, 0.0], [0.0, 2.0]]))  # norms 8 and 2: scores [[8, 6], [32, 2]]
    assert wanda_mask(weight, statistics, 0.5).tolist() == [[True, False], [True, False]]
    nothing = InputStatistics.empty(2, weight.device)
    assert wanda_mask(weight, nothing, 0.5).tolist() == [[False, True], [True, False]], "no token: by magnitude"


def test_criteria_that_look_at_inputs_cost_less_where_inputs_differ_in_size():
    tokens, errors = random_tokens(8, 24), {}
    for criterion in ("magnitude", "wanda", "sparsegpt"):
        model = small_network()
        with torch.no_grad():
            exact = model(tokens)
            prune(model, 0.5, criterion, tokens)
            errors[criterion] = float((model(tokens) - exact).norm())
    assert errors["sparsegpt"] < 0.6 * errors["wanda"] < 0.6 * errors["magnitude"]


def test_zeros_come_through_files():
    model = small_network()
    masks = prune(model, 0.6, "magnitude")
    files = model_to_files(model)
    read = model_from_files(files["config.json"], files["model.safetensors"])
    found = zero_masks(read)
    assert all(torch.equal(found[name], masks[name]) for name in masks)
    assert not zero_masks(small_network()), "a network that was not pruned has no masks"


def test_groups_that_do_not_divide_are_refused_with_those_that_do():
    with pytest.raises(ConfigError, match=r"groups of 5.*32 inputs of layers\.0.*can be 2, 4, 8, 16, 32"):
        prune(small_network(), GroupSparsity(2, 5), "magnitude")
