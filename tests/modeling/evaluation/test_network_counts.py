import pytest
import torch

from modeling.attention.kinds import FullAttention, PooledAttention, PoolLevel, WindowAttention
from modeling.compression.integers import quantize_int8, quantize_packed, with_int8_cache
from modeling.compression.low_rank import factorize
from modeling.compression.pruning import linear_weights, prune
from modeling.compression.structured_pruning import keep_heads_and_neurons
from modeling.evaluation.config_counts import forward_flops, parameters
from modeling.evaluation.network_counts import (
    bit_operations_per_token,
    dense_macs_per_token,
    network_parameters,
    nonzero_macs_per_token,
)
from modeling.experts.config import ExpertsConfig
from modeling.layers.integer_grid import IntegerGrid
from modeling.transformer_config import EmbeddingBand
from tests.modeling.attention.test_lsh_attention import with_lsh
from tests.modeling.evaluation.test_config_counts import counted
from tests.modeling.networks import random_tokens, small_network

POOLED = PooledAttention(window=8, levels=(PoolLevel(stride=4),), pooling="learnt")


def packed(model):
    return quantize_packed(model, IntegerGrid(4, 32), IntegerGrid(4, 32))


NETWORKS = {
    "plain": {},
    "untied": {"tied_embeddings": False},
    "experts": {"experts": ExpertsConfig(experts=4, active=2, expert_width=12, shared_width=6, every=2)},
    "bands": {"embedding_bands": (EmbeddingBand(entries=20, width=24), EmbeddingBand(width=8))},
    "kinds": {"attention": (POOLED, WindowAttention(window=8)), "context_length": 64},
}


@pytest.mark.parametrize("changes", NETWORKS.values(), ids=NETWORKS)
def test_a_network_as_its_config_says_counts_as_the_config_does_in_float_and_int8(changes):
    model = small_network(**changes)
    for one in (model, quantize_int8(model)):
        assert network_parameters(one) == parameters(model.config)
        for context in (1, 24):
            assert 2 * context * dense_macs_per_token(one, context) == forward_flops(model.config, context)


@torch.no_grad()
def test_macs_are_torchs_for_low_rank_layers_and_fewer_heads():
    model, tokens = small_network(heads=4, attention=(FullAttention(), WindowAttention(window=8))), random_tokens(2, 24)
    cut = keep_heads_and_neurons(model, {"layers.0.attention": [0, 3], "layers.1.attention": [1]}, {})
    for one in (factorize(model, 2, tokens), cut, factorize(cut, 1.5, tokens)):
        assert counted(lambda one=one: one(tokens)) == 2 * tokens.numel() * dense_macs_per_token(one, 24)
        assert network_parameters(one) == sum(parameter.numel() for parameter in one.parameters())


def test_golden_bit_operations():
    # Width 32, 48 neurons, 2 layers: 4 x 32^2 + 2 x 32 x 48 = 7,168 each, the head 61 x 32 = 1,952; attention over 24
    # tokens 2 x 24 x 32 = 1,536 per layer and token.
    model = small_network()
    matrices, attention = 2 * 7_168 + 1_952, 2 * 1_536
    assert dense_macs_per_token(model, 24) == matrices + attention
    assert bit_operations_per_token(model, 24) == 1_024 * (matrices + attention)
    assert bit_operations_per_token(quantize_int8(model), 24) == 64 * matrices + 1_024 * attention


def test_zeros_count_where_they_are_asked_for():
    model = small_network()
    prune(model, 0.75, "magnitude")
    left = sum(int(weight.count_nonzero()) for weight in linear_weights(model).values())
    assert nonzero_macs_per_token(model, 24) == left + 1_952 + 2 * 1_536
    assert dense_macs_per_token(model, 24) == 2 * 7_168 + 1_952 + 2 * 1_536
    quantized = quantize_int8(model)
    skipped = bit_operations_per_token(quantized, 24, skip_zeros=True)
    assert 0.97 * (left + 1_952) * 64 <= skipped - 1_024 * 2 * 1_536 <= (left + 1_952) * 64
    assert network_parameters(model) == parameters(model.config), "zeros are parameters"


def test_a_module_may_say_its_bits_and_an_attention_its_products():
    model = small_network()
    before = bit_operations_per_token(model, 24)
    model.layers[0].feed_forward.up.operand_bits = (4, 8)
    assert before - bit_operations_per_token(model, 24) == (1_024 - 32) * 32 * 48

    class Other(torch.nn.Module):
        """In place of an attention."""

        def mixing_products(self, tokens):
            return 10 * tokens

    model.layers[0].attention = Other()
    assert dense_macs_per_token(model, 24) == 2 * 7_168 - 4 * 32**2 + 1_952 + 1_536 + 240


@pytest.mark.parametrize(("student", "quantize", "saved", "by_matrices"), [
    (False, quantize_int8, 93.23, 78.12), (False, packed, 95.83, 80.73), (True, packed, 98.78, 93.75),
])  # fmt: skip
def test_products_with_an_int8_cache_are_of_integers(student, quantize, saved, by_matrices):
    """The recipes of configs/recipes/frontier.yaml, with an int8 cache and with a float cache."""
    sizes = {"context_length": 256, "vocabulary_size": 1_024}
    teacher = small_network(layers=4, width=192, heads=6, feed_forward_width=768, **sizes)
    model = small_network(layers=2, width=128, heads=4, feed_forward_width=512, **sizes) if student else teacher
    before = bit_operations_per_token(teacher, 256)
    for quantized, share in ((quantize(with_int8_cache(model)), saved), (quantize(model), by_matrices)):
        assert 100 * (1 - bit_operations_per_token(quantized, 256) / before) == pytest.approx(share, abs=0.01)


def test_other_attention_over_an_int8_cache_multiplies_floats():
    for model in (small_network(attention=(POOLED, WindowAttention(window=8))), with_lsh()):
        assert bit_operations_per_token(with_int8_cache(model), 24) == bit_operations_per_token(model, 24)
