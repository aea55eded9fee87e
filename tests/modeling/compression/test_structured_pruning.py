import pytest
import torch

from data_schemas.errors import ConfigError
from modeling.attention.key_value_cache import DecoderCache
from modeling.attention.kinds import FullAttention, PooledAttention, PoolLevel, WindowAttention
from modeling.compression.calibration import InputStatistics
from modeling.compression.integers import quantize_int8
from modeling.compression.low_rank import factorize
from modeling.compression.pruning import prune, zero_masks
from modeling.compression.structured_pruning import (
    head_importance,
    keep_heads_and_neurons,
    keep_layers,
    neuron_importance,
    remove_heads_and_neurons,
    remove_layers,
)
from modeling.evaluation.network_counts import attention_heads, network_parameters
from modeling.experts.config import ExpertsConfig
from modeling.export.gpt_neox_config import to_huggingface
from modeling.export.model_files import model_from_files, model_to_files
from modeling.feed_forward import FeedForward
from modeling.replacements import replacements_of
from tests.modeling.networks import random_tokens, small_network

LEARNT = PooledAttention(window=8, levels=(PoolLevel(stride=4),), pooling="learnt")
NETWORKS = {
    "plain": {},
    "experts": {"experts": ExpertsConfig(experts=3, active=2, expert_width=20, shared_width=12, every=2)},
    "pooled": {"attention": (LEARNT, WindowAttention(window=8))},
}


def network(**changes):
    return small_network(**{"layers": 4, "heads": 4, **changes})


def after_files(model):
    files = model_to_files(model)
    return model_from_files(files["config.json"], files["model.safetensors"])


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("changes", NETWORKS.values(), ids=NETWORKS)
@torch.no_grad()
def test_what_is_left_computes_what_the_network_does_without_the_others(changes, low_rank):
    model, tokens = network(**changes), random_tokens(3, 24)
    if low_rank:
        model = factorize(model, 1.5, tokens)
    heads = {f"layers.{layer}.attention": kept for layer, kept in enumerate(([0, 2], [1], [0, 1, 3], [3]))}
    feed_forwards = {name: one for name, one in model.named_modules() if isinstance(one, FeedForward)}
    neurons = {name: list(range(1, 12, 2)) for name in feed_forwards}
    cut = keep_heads_and_neurons(model, heads, neurons)

    def only(kept, width):
        def hook(_, given):
            mask = torch.zeros(given[0].shape[-1] // width, width)
            mask[kept] = 1
            return (given[0] * mask.flatten(),)

        return hook

    for name, kept in heads.items():
        model.get_submodule(f"{name}.output").register_forward_pre_hook(only(kept, model.config.head_width))
    for name, kept in neurons.items():
        model.get_submodule(f"{name}.down").register_forward_pre_hook(only(kept, 1))
    torch.testing.assert_close(cut(tokens), model(tokens), rtol=1e-4, atol=1e-4)
    assert [attention_heads(layer.attention) for layer in cut.layers] == [2, 1, 3, 1]
    torch.testing.assert_close(after_files(cut)(tokens), cut(tokens), rtol=0, atol=0)
    quantized = quantize_int8(cut)
    assert float((quantized(tokens) - cut(tokens)).norm() / cut(tokens).norm()) < 0.06


@torch.no_grad()
def test_neurons_alone_leave_a_network_of_a_smaller_config():
    model, tokens = network(), random_tokens(3, 24)
    cut = remove_heads_and_neurons(model, 1.0, 0.25, tokens)
    assert cut.config.feed_forward_width == 12
    assert not replacements_of(cut)
    assert to_huggingface(cut.config, torch.float32)["intermediate_size"] == 12
    mixed = remove_heads_and_neurons(network(**NETWORKS["experts"]), 1.0, 0.5, tokens)
    assert not replacements_of(mixed)
    assert mixed.config.experts.expert_width == 10 and mixed.config.experts.shared_width == 6
    assert mixed.config.feed_forward_width == 24


@torch.no_grad()
def test_what_is_left_makes_up_for_what_goes():
    model, tokens = network(), random_tokens(8, 24)
    exact = model(tokens)
    kept = {f"layers.{layer}.feed_forward": list(range(0, 48, 2)) for layer in range(4)}
    blind = keep_heads_and_neurons(model, {}, kept)(tokens)
    chosen = remove_heads_and_neurons(model, 1.0, 0.5, tokens)(tokens)
    assert (chosen - exact).norm() < 0.2 * (blind - exact).norm()


@torch.no_grad()
def test_dead_neurons_cost_nothing():
    model, tokens = network(), random_tokens(8, 24)
    for layer in model.layers:
        layer.feed_forward.up.bias[10:34] = -100
    cut = remove_heads_and_neurons(model, 1.0, 0.5, tokens)
    torch.testing.assert_close(cut(tokens), model(tokens), rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_golden_importance():
    reader = torch.nn.Linear(4, 2)
    reader.weight.copy_(torch.tensor([[3.0, 0.0, 1.0, 0.0], [4.0, 2.0, 0.0, 1.0]]))
    statistics = InputStatistics.empty(4, reader.weight.device)
    statistics.add(torch.tensor([[1.0, 4.0, 0.0, 2.0], [3.0, 0.0, 0.0, 6.0]]))
    assert neuron_importance(reader, statistics).tolist() == [2 * 5, 2 * 2, 0 * 1, 4 * 1]
    # Heads of 2: mean squares 5 + 8 and 0 + 20, weights 9 + 16 + 4 and 2.
    expected = [(13 * 29) ** 0.5, (20 * 2) ** 0.5]
    assert head_importance(reader, statistics, 2).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("base_layers", [None, 2])
@torch.no_grad()
def test_layers_go_as_if_they_added_nothing(base_layers):
    kinds = (FullAttention(), WindowAttention(window=8), LEARNT, FullAttention())
    model, tokens = network(attention=kinds, base_layers=base_layers), random_tokens(3, 24)
    cut = keep_layers(model, [0, 3])
    assert cut.config.attention == (FullAttention(),)
    for layer in (1, 2):
        for module in (model.layers[layer].attention.output, model.layers[layer].feed_forward.down):
            for parameter in module.parameters():
                parameter.zero_()
    torch.testing.assert_close(cut(tokens), model(tokens), rtol=1e-4, atol=1e-4)
    assert keep_layers(model, [1, 3]).config.attention == (WindowAttention(window=8), FullAttention())
    # Now that two layers add nothing, they are the ones to go.
    torch.testing.assert_close(remove_layers(model, 0.5, tokens)(tokens), cut(tokens), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_layers_with_experts_go_in_whole_periods():
    model, tokens = network(**NETWORKS["experts"]), random_tokens(3, 24)
    cut = remove_layers(model, 0.5, tokens)
    assert cut.config.layers == 2 and [cut.config.layer_experts(layer) is None for layer in range(2)] == [True, False]
    assert network_parameters(cut) < network_parameters(model)
    with pytest.raises(ConfigError, match=r"every is 3, which does not divide the 4 layers"):
        remove_layers(network(experts=ExpertsConfig(every=3)), 0.5, tokens)


@torch.no_grad()
def test_zeros_stay_zeros():
    model, tokens = network(), random_tokens(3, 24)
    prune(model, 0.5, "magnitude")
    cut = remove_heads_and_neurons(model, 0.5, 0.5, tokens)
    shares = [float(kept.float().mean()) for kept in zero_masks(cut).values()]
    assert len(shares) == 16 and max(shares) < 0.85


@torch.no_grad()
def test_decode_behind_a_cache_of_as_many_heads_is_the_full_forward():
    model, tokens = network(), random_tokens(2, 20)
    cut = remove_heads_and_neurons(model, 0.5, 0.5, tokens)
    config = cut.config
    kinds = [config.layer_attention(layer) for layer in range(config.layers)]
    cache = DecoderCache(kinds, 2, config.context_length, [2] * len(kinds), config.head_width, cut.final_norm.weight)
    pieces = [cut(tokens[:, :9], cache=cache)] + [cut(tokens[:, i : i + 1], cache=cache) for i in range(9, 20)]
    torch.testing.assert_close(torch.cat(pieces, 1), cut(tokens), rtol=1e-4, atol=1e-4)


def test_integers_and_replaced_parts_are_refused():
    model, tokens = network(), random_tokens(2, 20)
    with pytest.raises(ConfigError, match=r"'structured' found .* in int8"):
        keep_layers(quantize_int8(model), [0])
    model.layers[1].attention = torch.nn.Identity()
    with pytest.raises(ConfigError, match=r"found a Identity as layers\.1\.attention.*before the pass that replaces"):
        remove_heads_and_neurons(model, 0.5, 1.0, tokens)
