import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from data_schemas.errors import ConfigError
from modeling.attention.kinds import PooledAttention, PoolLevel
from modeling.compression.integers import quantize_int8
from modeling.compression.low_rank import RankCurve, choose_ranks, factorize, whitened_svd
from modeling.compression.pruning import linear_weights, prune
from modeling.experts.config import ExpertsConfig
from modeling.export.model_files import model_from_files, model_to_files
from modeling.layers.int8 import Int8Linear
from modeling.layers.linear import LowRankLinear
from modeling.transformer_config import EmbeddingBand
from tests.modeling.networks import random_tokens, small_network

POOLED = PooledAttention(window=8, levels=(PoolLevel(stride=4),), pooling="learnt")
NETWORKS = {
    "plain": {},
    "untied": {"tied_embeddings": False},
    "experts": {"experts": ExpertsConfig(experts=3, active=1, shared_width=8)},
    "bands": {"embedding_bands": (EmbeddingBand(entries=20, width=24), EmbeddingBand(width=8)), "attention": POOLED},
}


def matrix_parameters(model) -> int:
    return sum(weight.numel() for weight in linear_weights(model).values())


@settings(max_examples=20, deadline=None)
@given(outputs=st.integers(2, 12), inputs=st.integers(2, 12), seed=st.integers(0, 50), data=st.data())
def test_the_losses_are_the_errors_and_no_matrix_of_that_rank_does_better(outputs, inputs, seed, data):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, inputs, generator=generator, dtype=torch.float64) * torch.logspace(0, 2, inputs)
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    moments = x.T @ x / len(x)
    factors = whitened_svd(weight, moments, damping=0.0)
    rank = data.draw(st.integers(1, min(inputs, outputs)))

    def error(matrix):
        return float((x @ (matrix - weight).T).square().sum(1).mean())

    left, right = factors.left[:, :rank], factors.right[:rank]
    ours = error(left @ right)
    assert ours == pytest.approx(float(factors.losses[rank:].sum()), rel=1e-6, abs=1e-8)
    plain = whitened_svd(weight, None)
    assert ours <= error(plain.left[:, :rank] @ plain.right[:rank]) * (1 + 1e-9) + 1e-8
    moved = left + 1e-3 * torch.randn(left.shape, generator=generator, dtype=torch.float64)
    assert ours <= error(moved @ right) + 1e-8


def test_golden_ranks():
    # Dense 24 parameters, 4 per rank: 5 ranks at most. Leaving out the last k loses 1, 3, 7, 15 ... of "flat"; nearly
    # nothing of "steep", which so goes down to the smallest rank first.
    flat = RankCurve(torch.tensor([64.0, 32, 16, 8, 4, 2, 1]), 4, 24)
    steep = RankCurve(torch.tensor([100.0, 10, 0.1, 0.01, 0, 0, 0]), 4, 24)
    curves = {"flat": flat, "steep": steep}
    assert choose_ranks(curves, 48) == {}
    assert choose_ranks(curves, 47) == {"steep": 5}, "no lower than the budget asks"
    assert choose_ranks(curves, 32) == {"steep": 2}
    # The first step of "flat" is the one of the least loss per parameter saved: rank 5 (3 / 4), 4 (7 / 8), 3 (15 / 12).
    assert choose_ranks(curves, 28) == {"steep": 2, "flat": 5}
    assert choose_ranks(curves, 24) == {"steep": 2, "flat": 4}
    assert choose_ranks(curves, 16) == {"steep": 2, "flat": 2}
    with pytest.raises(ConfigError, match=r"15 of 48 parameters, but at rank 2 they have 16.*up to 3$"):
        choose_ranks(curves, 15)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), share=st.floats(0.3, 1))
def test_greed_is_within_one_step_of_the_best(seed, share):
    generator = torch.Generator().manual_seed(seed)
    curves = {}
    for name, (outputs, inputs) in {"a": (6, 8), "b": (12, 5)}.items():
        losses = torch.rand(min(outputs, inputs), generator=generator, dtype=torch.float64).pow(3)
        curves[name] = RankCurve(losses.sort(descending=True).values, outputs + inputs, outputs * inputs)
    total = sum(curve.parameters for curve in curves.values())
    budget = max(math.floor(share * total), 2 * (14 + 17))

    def options(curve):
        yield None, curve.parameters, 0.0
        for rank in range(2, curve.largest_rank + 1):
            yield rank, rank * curve.parameters_per_rank, float(curve.losses[rank:].sum())

    def lost(size):
        return min(
            one[2] + other[2] for one in options(curves["a"]) for other in options(curves["b"])
            if one[1] + other[1] <= size
        )  # fmt: skip

    ranks = choose_ranks(curves, budget)
    chosen = [next(one for one in options(curve) if one[0] == ranks.get(name)) for name, curve in curves.items()]
    assert sum(one[1] for one in chosen) <= budget
    largest_step = max(curve.parameters - 2 * curve.parameters_per_rank for curve in curves.values())
    smaller = budget - largest_step
    worst = lost(smaller) if smaller >= 2 * (14 + 17) else math.inf
    assert lost(budget) - 1e-9 <= sum(one[2] for one in chosen) <= worst + 1e-9


@pytest.mark.parametrize("changes", NETWORKS.values(), ids=NETWORKS)
@torch.no_grad()
def test_networks_of_every_make_get_smaller_and_come_back_from_files(changes):
    model, tokens = small_network(**changes), random_tokens(8, 24)
    exact = model(tokens)
    smaller = factorize(model, 2.5, tokens)
    ratio = matrix_parameters(model) / matrix_parameters(smaller)
    assert 2.5 <= ratio < 2.6
    assert all(parameter.requires_grad for parameter in smaller.parameters())
    found = smaller(tokens)
    errors = {
        whitened: float((factorize(model, 2.5, tokens, whitened)(tokens) - exact).norm() / exact.norm())
        for whitened in (True, False)
    }
    assert errors[True] < 0.5 * errors[False]
    files = model_to_files(smaller)
    read = model_from_files(files["config.json"], files["model.safetensors"])
    assert torch.equal(read(tokens), found)
    cache = read.new_cache(batch=len(tokens))
    pieces = [read(tokens[:, :9], cache=cache), read(tokens[:, 9:], cache=cache)]
    torch.testing.assert_close(torch.cat(pieces, 1), found, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_bias_takes_on_what_the_mean_loses():
    model, tokens = small_network(), random_tokens(8, 24)
    name = "layers.0.feed_forward.up"
    hidden = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, given: hidden.append(given[0]))
    exact = model(tokens)
    hook.remove()
    smaller = factorize(model, 3, tokens)
    layer = smaller.get_submodule(name)
    assert isinstance(layer, LowRankLinear)
    before, after = model.get_submodule(name)(hidden[0]), layer(hidden[0])
    torch.testing.assert_close(before.mean((0, 1)), after.mean((0, 1)), rtol=1e-4, atol=1e-4)
    assert exact.isfinite().all()


@torch.no_grad()
def test_a_matrix_of_lower_rank_loses_nothing_and_factors_can_be_factorized():
    model, tokens = small_network(), random_tokens(8, 24)
    for module in model.layers.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(whitened_low_rank(module.weight, 4))
    first = factorize(model, 2, tokens)
    torch.testing.assert_close(first(tokens), model(tokens), rtol=1e-3, atol=1e-3)
    second = factorize(first, 2, tokens)
    assert 2 <= matrix_parameters(first) / matrix_parameters(second) < 2.1
    layers = [module for module in second.modules() if isinstance(module, LowRankLinear)]
    assert layers and not any(isinstance(inner, LowRankLinear) for module in layers for inner in module.children())


def whitened_low_rank(weight, rank):
    factors = whitened_svd(weight, None)
    return (factors.left[:, :rank] @ factors.right[:rank]).to(weight.dtype)


@torch.no_grad()
def test_factors_are_quantized_and_pruned_like_any_matrix():
    model, tokens = factorize(small_network(), 2, random_tokens(8, 24)), random_tokens(4, 20)
    prune(model, 0.3, "magnitude")
    quantized = quantize_int8(model)
    inside = [module for module in quantized.layers.modules() if isinstance(module, LowRankLinear)]
    assert inside and all(isinstance(one, Int8Linear) for module in inside for one in (module.up, module.down))
    exact, found = model(tokens), quantized(tokens)
    assert float((found - exact).norm() / exact.norm()) < 0.05
    files = model_to_files(quantized)
    assert torch.equal(model_from_files(files["config.json"], files["model.safetensors"])(tokens), found)


def test_what_cannot_be_is_refused_with_what_can():
    model, tokens = small_network(), random_tokens(2, 20)
    with pytest.raises(ConfigError, match=r"times_smaller can be up to 10\.1$"):
        factorize(model, 1000, tokens)
    with pytest.raises(ConfigError, match=r"'low_rank' found .* in int8"):
        factorize(quantize_int8(model), 2, tokens)
    prune(model, 0.5, "magnitude")
    with pytest.raises(ConfigError, match=r"50% zeros.*before the pass that prunes"):
        factorize(model, 2, tokens)
