import pytest
import torch
from torch import nn

from modeling.attention.lsh_attention import LshAttention
from modeling.compression.activation_sparsity import use_sparse_feed_forwards
from modeling.compression.attention_transfer import share_query_key
from modeling.compression.integers import quantize_int8
from modeling.compression.low_rank import factorize
from modeling.compression.smooth_quant import input_ranges, smooth, static_scales
from tests.modeling.networks import random_tokens, small_network

TEXT = random_tokens(8, 24)


def plain():
    return small_network()


def with_experts():
    return small_network(experts={"experts": 3, "active": 2, "shared_width": 16}, tied_embeddings=False)


def with_bands():
    return small_network(embedding_bands=({"entries": 20, "width": 32}, {"width": 16}), tied_embeddings=False)


def low_rank_and_sparse():
    model = factorize(small_network(), 1.3, TEXT)
    use_sparse_feed_forwards(model)
    model.layers[1].feed_forward.threshold = 0.1
    return model


def with_lsh():
    model = small_network()
    given = model.layers[0].attention
    made = LshAttention(32, 2, 16, rounds=1, bucket_size=8, buckets=4, seed=0, scale=given.scale)
    share_query_key(given, made)
    model.layers[0].attention = made
    return model.eval()


@pytest.mark.parametrize("make", [plain, with_experts, with_bands, low_rank_and_sparse, with_lsh])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@torch.no_grad()
def test_a_smoothed_network_is_the_same_function(make, alpha):
    model = make().double()
    exact = model(TEXT)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    smooth(model, input_ranges(model, TEXT), alpha)
    torch.testing.assert_close(model(TEXT), exact)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"layers.0.attention_norm.bias", "layers.1.feed_forward_norm.weight"} <= changed
    assert ("head.weight" in changed) == (make is with_experts), "tables that are shared or in bands stay"


@torch.no_grad()
def test_at_one_half_channels_and_weights_are_equally_large():
    model = small_network()
    smooth(model, input_ranges(model, TEXT), 0.5)
    after = input_ranges(model, TEXT)
    for name in ("attention.query_key_value", "feed_forward.up", "feed_forward.down"):
        weights = model.get_parameter(f"layers.1.{name}.weight").abs().amax(0)
        seen = after[f"layers.1.{name}"] > 0  # a neuron that never fires has nothing to share
        torch.testing.assert_close(weights[seen], after[f"layers.1.{name}"][seen])


@torch.no_grad()
def test_outlying_channels_cost_less_after_smoothing():
    model = small_network()
    for layer in model.layers:
        for norm in (layer.attention_norm, layer.feed_forward_norm):
            norm.weight[3] = 20.0
        for linear in (layer.attention.query_key_value, layer.feed_forward.up):
            linear.weight[:, 3] /= 100
    exact = model(TEXT)

    def error(quantized):
        return float((quantized(TEXT) - exact).norm() / exact.norm())

    plain_error = error(quantize_int8(model))
    static_error = error(quantize_int8(model, input_scales=static_scales(model, input_ranges(model, TEXT))))
    smooth(model, input_ranges(model, TEXT))
    smoothed_error = error(quantize_int8(model))
    smoothed_static = error(quantize_int8(model, input_scales=static_scales(model, input_ranges(model, TEXT))))
    assert smoothed_error < 0.5 * plain_error and smoothed_static < 0.5 * static_error
    assert smoothed_error < 0.02 and smoothed_static < 0.04


@torch.no_grad()
def test_ranges_are_the_largest_inputs_and_scales_leave_out_what_cannot_have_one():
    model = with_experts()
    model.layers[0].feed_forward.router.weight[2] = -1e4 * torch.ones(32)
    model.layers[0].feed_forward_norm.bias.fill_(10.0)  # so that no token goes to the last expert
    seen: list[torch.Tensor] = []
    output = model.layers[1].attention.output
    handle = output.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    ranges = input_ranges(model, TEXT, batch_rows=3)
    handle.remove()
    assert len(seen) == 3 and not output._forward_pre_hooks
    largest = torch.cat(seen).abs().amax((0, 1))
    assert torch.equal(ranges["layers.1.attention.output"], largest)
    scales = static_scales(model, ranges)
    assert scales["layers.1.attention.output"] == pytest.approx(float(largest.max()) / 127)
    linears = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert linears - set(scales) == {name for name in linears if not ranges[name].any()}
    assert "layers.0.feed_forward.experts.2.up" not in scales
    use_sparse_feed_forwards(model)
    assert not any(".up" in name or ".down" in name for name in static_scales(model, ranges))
