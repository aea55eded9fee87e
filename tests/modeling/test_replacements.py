import pytest
import torch

from data_schemas.errors import ConfigError, ContractError
from modeling.compression.integers import quantize_int8
from modeling.layers.linear import Replacement, ResizedLinear
from modeling.replacements import KINDS, check_float, empty_network, float_state, rebuild, replacements_of
from tests.modeling.compressed_networks import COMPRESSIONS
from tests.modeling.networks import SMALL, random_tokens, small_network


def test_names_in_files_never_change():
    assert set(KINDS) == {
        *("linear", "low_rank_linear", "int8_linear", "static_int8_linear", "int8_embedding"),
        *("packed_linear", "packed_embedding", "block_pooling", "sparse_feed_forward"),
        *("linear_attention", "lsh_attention", "int8_cache_attention", "int8_cache_lsh_attention"),
    }
    assert all(issubclass(module_class, Replacement) for module_class in KINDS.values())


@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=list(COMPRESSIONS))
def test_a_rebuilt_network_is_the_same(compression):
    model = compression(small_network()).eval()
    rebuilt = rebuild(model.config, replacements_of(model), model.state_dict())
    assert replacements_of(rebuilt) == replacements_of(model)
    assert not any(module.training for module in rebuilt.modules())
    with torch.no_grad():
        assert torch.equal(rebuilt(random_tokens(2, 9)), model(random_tokens(2, 9)))


def test_sizes_follow_from_the_tensors():
    state = float_state(small_network(), "test")
    down = "layers.0.feed_forward.down"
    state |= {"layers.0.feed_forward.up.weight": torch.randn(9, 32), "layers.0.feed_forward.up.bias": torch.randn(9)}
    state[f"{down}.weight"] = torch.randn(32, 9)
    outdated = {down: {"kind": "linear", "inputs": 5, "outputs": 5, "bias": True}}
    rebuilt = rebuild(SMALL, outdated, state)
    assert isinstance(rebuilt.get_submodule(down), ResizedLinear)
    assert replacements_of(rebuilt)[down] == {"kind": "linear", "inputs": 9, "outputs": 32, "bias": True}


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("layers.0.feed_forward.up", {"kind": "int3_linear", "inputs": 32, "outputs": 48, "bias": True}),
        ("layers.0.feed_forward.up", {"kind": "int8_linear", "inputs": 32}),
        ("layers.9.feed_forward.up", {"kind": "int8_linear", "inputs": 32, "outputs": 48, "bias": True}),
    ],
    ids=["kind", "sizes", "name"],
)
def test_descriptions_that_cannot_be_built_are_refused(name, description):
    with pytest.raises(ContractError, match=r"config\.json replaces .*accepted kinds are block_pooling"):
        empty_network(SMALL, {name: description})


def test_integers_are_refused_where_floats_are_needed():
    with pytest.raises(ConfigError, match=r"'prune' found embedding\.weight in int8"):
        check_float(quantize_int8(small_network()), "prune")
