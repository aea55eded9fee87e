import copy

import pytest
import torch
from torch import nn

from modeling import kernels
from modeling.compression.activation_sparsity import use_sparse_feed_forwards
from modeling.compression.integers import quantize_int8
from modeling.export.model_files import CONFIG, WEIGHTS, model_from_files, model_to_files
from modeling.feed_forward import FeedForward
from modeling.layers.linear import LowRankLinear
from modeling.layers.sparse_feed_forward import FEW_ROWS, SparseFeedForward, thresholded_relu
from tests.modeling.networks import random_tokens, small_network


@pytest.fixture(params=["kernels", "no compiler"])
def with_kernels(request, monkeypatch):
    if request.param == "no compiler":
        monkeypatch.setattr(kernels, "available", lambda: False)
    elif not kernels.available():
        pytest.skip("needs a C compiler")
    return request.param


def test_threshold_by_hand():
    values = torch.tensor([-1.0, 0.0, 0.1, 0.2, 0.3], requires_grad=True)
    result = thresholded_relu(values, 0.2)
    assert torch.equal(result, torch.tensor([0, 0, 0, 0, 0.3]))
    result.sum().backward()
    assert values.grad is not None and values.grad.tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("rows", [1, FEW_ROWS, FEW_ROWS + 1])
@pytest.mark.parametrize("int8", [False, True])
def test_decode_and_prefill_are_the_plain_feed_forward(with_kernels, rows, int8):
    model = small_network()
    plain = copy.deepcopy(model)
    use_sparse_feed_forwards(model)
    if int8:
        model, plain = quantize_int8(model), quantize_int8(plain)
    hidden = torch.randn(rows, 1, 32)
    ours, theirs = model.layers[0].feed_forward, plain.layers[0].feed_forward
    assert isinstance(ours, SparseFeedForward) and isinstance(theirs, FeedForward)
    with torch.inference_mode():
        for _ in range(2):  # the second time behind what the first has laid out anew
            torch.testing.assert_close(ours(hidden), theirs(hidden), rtol=0, atol=1e-5)
    if not int8:  # what inference has laid out is trained on
        ours(hidden).square().mean().backward()
        theirs(hidden).square().mean().backward()
        torch.testing.assert_close(ours.down.weight.grad, theirs.down.weight.grad)


def test_new_int8_weights_are_noticed():
    model = small_network()
    use_sparse_feed_forwards(model)
    layer = quantize_int8(model).layers[0].feed_forward
    hidden = torch.randn(1, 32)
    before = layer(hidden)
    layer.down.weight.neg_()
    bias = layer.down.bias
    torch.testing.assert_close(layer(hidden) - bias, bias - before)


def test_a_low_rank_matrix_keeps_its_own_product():
    given = FeedForward(8, 16)
    given.up, given.down = LowRankLinear(8, 16, 2, True), LowRankLinear(16, 8, 2, True)
    made = SparseFeedForward.from_feed_forward(given)
    assert made.sizes() == {"width": 8, "neurons": 16, "threshold": 0.0}
    hidden = torch.randn(1, 8)
    with torch.no_grad():
        assert torch.equal(made(hidden), given(hidden))
        made.down = nn.Linear(16, 8)
        torch.testing.assert_close(made(hidden), made.down(made.up(hidden).relu()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("experts", [None, {"experts": 3, "shared_width": 6}])
@torch.no_grad()
def test_a_sparse_network_comes_back_as_it_was(int8, experts):
    model = small_network(experts=experts)
    use_sparse_feed_forwards(model)
    for module in model.modules():
        if isinstance(module, SparseFeedForward):
            module.threshold = 0.25
    model = quantize_int8(model) if int8 else model
    files = model_to_files(model)
    with torch.inference_mode():
        model(random_tokens(1, 3))  # decode's order of the weights is not that of the file
    assert model_to_files(model) == files
    loaded = model_from_files(files[CONFIG], files[WEIGHTS])
    for tokens in (random_tokens(2, 9), random_tokens(1, 2)):
        assert torch.equal(loaded(tokens), model(tokens))
    assert not torch.equal(loaded(tokens), small_network(experts=experts)(tokens)), "the threshold counts"
