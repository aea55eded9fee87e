import os

import pytest
import torch

from modeling.compression.activation_sparsity import use_sparse_feed_forwards
from modeling.compression.integers import quantize_int8, quantize_packed, with_int8_cache
from modeling.compression.low_rank import factorize
from modeling.compression.structured_pruning import remove_heads_and_neurons
from modeling.decoding import native_decoder
from modeling.decoding.generation import generate_batch
from modeling.decoding.native_decoder import NativeDecoder
from modeling.kernels import available
from modeling.layers.integer_grid import IntegerGrid
from modeling.layers.sparse_feed_forward import SparseFeedForward
from tests.modeling.networks import random_tokens, small_network

pytestmark = pytest.mark.skipif(not available(), reason="needs a C compiler")


def packed(model, bits=4):
    return quantize_packed(model, IntegerGrid(bits, 32), IntegerGrid(4, 32))


def static(model):
    scales = {name: 0.03 for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    return quantize_int8(model, input_scales=scales)


def sparse(model):
    use_sparse_feed_forwards(model)
    for module in model.modules():
        if isinstance(module, SparseFeedForward):
            module.threshold = 0.1
    return model


NETWORKS = {
    "float": lambda: small_network(),
    "untied": lambda: small_network(tied_embeddings=False),
    "scaled": lambda: small_network(base_width=16, base_layers=1),
    "fewer heads": lambda: remove_heads_and_neurons(small_network(), 0.4, 0.3, random_tokens(4, 16)),
    "low rank": lambda: factorize(small_network(), 1.5, random_tokens(8, 20)),
    "float, int8 cache": lambda: with_int8_cache(small_network()),
    "sparse": lambda: sparse(small_network()),
    "sparse int8": lambda: quantize_int8(sparse(small_network())),
    "sparse int4": lambda: packed(sparse(small_network())),
    "int8": lambda: quantize_int8(small_network()),
    "int8 static": lambda: static(small_network()),
    "int8 low rank": lambda: quantize_int8(factorize(small_network(), 1.5, random_tokens(8, 20))),
    "int4": lambda: packed(small_network()),
    "int2, int8 cache": lambda: packed(with_int8_cache(small_network()), 2),
}


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_cache_are_those_of_torch(name):
    model = NETWORKS[name]().eval()
    prompts, further = [[3, 1, 4, 1, 5], [9, 2]], [[6, 5], [3, 5]]
    ours, theirs = model.new_cache(2), model.new_cache(2)
    native = NativeDecoder.create(model, ours)
    assert native is not None
    logits = [native.predict(prompts).clone()]
    logits += [native.predict([[token] for token in tokens]).clone() for tokens in further]
    padded = torch.tensor([prompts[0], [*prompts[1], 0, 0, 0]])
    counts = torch.tensor([5, 2])
    expected = [model(padded, cache=theirs, counts=counts)[torch.arange(2), counts - 1]]
    expected += [model(torch.tensor(row)[:, None], cache=theirs)[:, -1] for row in further]
    # Sums in another order may round an integer the other way.
    bound = 1e-5 if name.split(",")[0] in ("float", "untied", "scaled", "fewer heads", "low rank", "sparse") else 0.02
    bound = 2e-3 if "int8 cache" in name and bound < 2e-3 else bound
    for actual, reference in zip(logits, expected, strict=True):
        assert float((actual - reference).norm() / reference.norm()) < bound
    assert ours.lengths.tolist() == theirs.lengths.tolist() == [7, 4]
    # torch continues from the cache that the kernel filled.
    actual, reference = (model(torch.tensor([[7], [7]]), cache=cache) for cache in (ours, theirs))
    assert float((actual - reference).norm() / reference.norm()) < bound


@torch.no_grad()
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_rows_together_and_on_threads_get_the_bits_that_they_get_alone(monkeypatch, name, threads):
    """Thirteen rows: blocks of eight, four and one row in one thread, shares of five, five and three in three."""
    monkeypatch.setattr("modeling.decoding.native_decoder.MAX_BYTES_FOR_PREFILL", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model = NETWORKS[name]().eval()
    prompts = [[1 + row, *range(2, 2 + row % 3)] for row in range(13)]
    caches = [model.new_cache(13), *(model.new_cache(1) for _ in prompts)]
    together, *alone = (NativeDecoder.create(model, cache) for cache in caches)
    for step in range(3):
        inputs = prompts if step == 0 else [[step + row] for row in range(13)]
        expected = torch.cat([decoder.predict([tokens]) for decoder, tokens in zip(alone, inputs, strict=True)])
        assert torch.equal(together.predict(inputs), expected)
    assert caches[0].lengths.tolist() == [int(cache.lengths) for cache in caches[1:]]


def test_threads_are_started_again_after_a_fork():
    pool = native_decoder._threads()
    assert pool.submit(abs, -1).result() == 1
    if not (child := os.fork()):
        try:
            own = native_decoder._threads()
            os._exit(0 if own is not pool and own.submit(abs, -1).result(timeout=60) == 1 else 1)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_batches_continue_as_with_torch_past_the_context_and_when_rows_end(monkeypatch):
    model = small_network(separate_documents=True).eval()
    prompts = [[3, 1, 4], [5], list(range(1, model.config.context_length + 5)), [8, 0, 2]]
    settings = {"max_new_tokens": 60, "temperature": 0.8, "top_k": 5, "seed": 3, "stop_token": 7}
    native = generate_batch(model, prompts, **settings)
    monkeypatch.setattr(NativeDecoder, "create", lambda model, cache: None)
    assert generate_batch(model, prompts, **settings) == native


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": {"kind": "window", "window": 5}},
        {"experts": {"experts": 2, "active": 1}},
        {"embedding_bands": [{"entries": 10, "width": 32}, {"width": 16}]},
    ],
)
def test_other_networks_are_left_to_torch(changes):
    model = small_network(**changes)
    assert NativeDecoder.create(model, model.new_cache(1)) is None


def test_large_double_and_hooked_networks_are_left_to_torch(monkeypatch):
    model = small_network()
    assert NativeDecoder.create(model, model.new_cache(1)) is not None
    assert NativeDecoder.create(model.double(), model.new_cache(1)) is None
    hooked = small_network()
    hooked.head.register_forward_hook(lambda *_: None)
    assert NativeDecoder.create(hooked, hooked.new_cache(1)) is None
    monkeypatch.setattr("modeling.decoding.native_decoder.MAX_BYTES", 100)
    model = small_network()
    assert NativeDecoder.create(model, model.new_cache(1)) is None


@torch.no_grad()
@pytest.mark.parametrize("norm", ["attention_norm", "feed_forward_norm"])
@pytest.mark.parametrize("name", NETWORKS)
def test_nan_stays_nan_in_torch_and_in_the_kernels(name, norm):
    """One number of one token's hidden state: no code of an integer stands for NaN, and no threshold removes it."""
    model = NETWORKS[name]().eval()
    getattr(model.layers[0], norm).bias[3] = torch.nan
    native = NativeDecoder.create(model, model.new_cache(1))
    assert native is not None
    for length in (1, 20):  # few rows are multiplied in C, many by torch
        assert model(random_tokens(1, length)).isnan().all()
        assert NativeDecoder.create(model, model.new_cache(1)).predict(random_tokens(1, length).tolist()).isnan().all()


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_nan_of_a_value_alone_stays_nan(name):
    """Keys and queries are numbers: no weight of attention is NaN, only what it multiplies."""
    model = NETWORKS[name]().eval()
    attention = model.layers[0].attention
    projection = next(module for module in attention.modules() if getattr(module, "bias", None) is not None)
    projection.bias[2 * attention.head_width + 1] = torch.nan
    for length in (1, 20):
        tokens = random_tokens(1, length)
        assert model(tokens, cache=model.new_cache(1))[:, -1].isnan().all()
        assert NativeDecoder.create(model, model.new_cache(1)).predict(tokens.tolist()).isnan().all()


@torch.inference_mode()
def test_an_int8_cache_longer_than_sums_are_exact_for():
    """Values are summed in 32 bits over 512 entries at a time."""
    model = with_int8_cache(small_network(context_length=1_100))
    tokens, ours, theirs = random_tokens(1, 1_100), model.new_cache(1), model.new_cache(1)
    native = NativeDecoder.create(model, ours)
    predicted = native.predict(tokens.tolist())
    expected = model(tokens, cache=theirs)[:, -1]
    assert float((predicted - expected).norm() / expected.norm()) < 2e-3
