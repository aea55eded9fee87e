import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.planner.networks import network_of, plain_network
from modeling.evaluation.config_counts import active_parameters, parameters
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from tests.modeling.evaluation.test_config_counts import BANDS, EXPERTS, KINDS, config, counted


@settings(max_examples=12, deadline=None)
@given(
    layers=st.integers(1, 3),
    kind=st.sampled_from(list(KINDS.values())),
    experts=st.sampled_from([None, EXPERTS.model_copy(update={"every": 1})]),
    bands=st.sampled_from(list(BANDS.values())),
    tied=st.booleans(),
)
def test_the_parts_sum_to_the_parameters_of_the_network(layers, kind, experts, bands, tied):
    shape = config(layers=layers, attention=kind, experts=experts, embedding_bands=bands, tied_embeddings=tied)
    network = network_of(shape)
    with torch.device("meta"):
        built = Transformer(shape)
    assert network.total_parameters == sum(parameter.numel() for parameter in built.parameters()) == parameters(shape)
    assert network.active_parameters == active_parameters(shape)
    assert (network.parameters["head"] == 0) == (tied and not any(band.width != shape.width for band in bands))
    assert (network.parameters["experts"] > 0) == (experts is not None)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("experts", [None, EXPERTS], ids=["dense", "experts"])
def test_the_parts_sum_to_the_flops_that_torch_counts(kind, experts):
    shape = config(layers=4, attention=kind, experts=experts, context_length=64)
    network = network_of(shape)
    torch.manual_seed(0)
    model, tokens = Transformer(shape).eval(), torch.randint(10, (1, 64))
    assert counted(lambda: model(tokens)) == pytest.approx(64 * network.forward_flops)
    assert (network.flops["experts"] > 0) == (experts is not None)


def test_a_plain_network_counts_what_a_config_counts_without_biases():
    """Both describe the same network; only biases, and scale and shift of the final norm, are the config's alone."""
    shape = TransformerConfig(
        layers=4, width=64, heads=4, feed_forward_width=200, vocabulary_size=300, context_length=32
    )
    own, plain = network_of(shape), plain_network(4, 64, 4, 200, 300, 32, tied=True)
    assert own.flops == plain.flops
    assert own.total_parameters - plain.total_parameters == 4 * (4 * 64 + 200 + 64) + 2 * 64


@pytest.mark.parametrize(
    ("arguments", "changes", "billions"),
    [
        ((32, 4096, 32, 14336, 128256, 8192), {"gated": True, "key_value_heads": 8}, 8.03),
        ((80, 8192, 64, 28672, 128256, 8192), {"gated": True, "key_value_heads": 8}, 70.55),
        ((126, 16384, 128, 53248, 128256, 8192), {"gated": True, "key_value_heads": 8}, 405.9),
        ((96, 12288, 96, 49152, 51200, 2048), {"tied": True}, 174.6),
        ((32, 4096, 32, 14336, 32000, 4096),
         {"gated": True, "key_value_heads": 8, "experts": 8, "active_experts": 2, "expert_width": 14336}, 46.7),
    ],
    ids=["Llama 3 8B", "Llama 3 70B", "Llama 3 405B", "GPT-3", "Mixtral 8x7B"],
)  # fmt: skip
def test_published_networks_have_their_published_size(arguments, changes, billions):
    assert plain_network(*arguments, **changes).total_parameters / 1e9 == pytest.approx(billions, rel=2e-3)
