import pytest
import torch

from modeling.compression.dequantization import dequantized, integer_modules
from modeling.compression.pruning import zero_masks
from tests.modeling.compressed_networks import COMPRESSIONS
from tests.modeling.networks import random_tokens, small_network

INTEGERS = [(name, True) for name in COMPRESSIONS if "int" in name]


@pytest.mark.parametrize(("name", "tied"), [*INTEGERS, ("int8", False), ("int2", False)])
def test_a_float_network_has_the_integers_values_and_takes_gradients(name, tied):
    integers = COMPRESSIONS[name](small_network(3, tied_embeddings=tied))
    floats = dequantized(integers)
    assert integer_modules(integers) and not integer_modules(floats)
    tokens = random_tokens(3, 12)
    with torch.no_grad():
        expected, found = integers(tokens), floats(tokens)
    # Only the activations' rounding is gone.
    assert (found - expected).norm() < 0.05 * expected.norm()
    floats(tokens).sum().backward()
    assert all(parameter.grad is not None for parameter in floats.layers.parameters())
    assert (floats.head.weight is floats.embedding.weight) == tied


def test_weights_are_codes_times_scales_to_the_bit():
    integers = COMPRESSIONS["int8"](small_network(3))
    for name, module in integer_modules(integers).items():
        weight = dequantized(integers).get_parameter(f"{name}.weight")
        assert torch.equal(weight, module.weight * module.scale[:, None])


def test_what_was_pruned_is_zero_after_quantising_and_back():
    name = "low_rank, sparse_activations, prune, int8"
    for kept in zero_masks(dequantized(COMPRESSIONS[name](small_network(3)))).values():
        assert 0.4 < kept.double().mean() <= 0.5
