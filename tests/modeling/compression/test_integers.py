import pytest
import torch
from torch import nn

from modeling.attention.int8_cache import Int8CacheAttention, Int8CacheLshAttention, Int8LayerCache
from modeling.attention.kinds import FullAttention, PooledAttention, PoolLevel, WindowAttention
from modeling.attention.linear_attention import LinearAttention
from modeling.attention.lsh_attention import LshAttention
from modeling.attention.multi_head import Attention
from modeling.compression.attention_transfer import share_query_key
from modeling.compression.integers import quantize_int8, quantize_packed, with_int8_cache
from modeling.compression.structured_pruning import remove_heads_and_neurons
from modeling.decoding.generation import generate_batch
from modeling.evaluation.network_counts import (
    bit_operations_per_token,
    dense_macs_per_token,
    network_parameters,
    nonzero_parameters,
)
from modeling.evaluation.peak_memory import peak_tensor_bytes
from modeling.export.model_files import model_from_files, model_to_files
from modeling.layers.int8 import Int8Embedding, Int8Linear, StaticInt8Linear
from modeling.layers.integer_grid import IntegerGrid
from modeling.layers.packed import PackedEmbedding, PackedLinear
from tests.modeling.networks import random_tokens, small_network

INT4 = IntegerGrid(4, 32)
KINDS = [
    FullAttention(),
    WindowAttention(window=8),
    PooledAttention(window=8, levels=(PoolLevel(stride=4, entries=4), PoolLevel(stride=8)), pooling="learnt"),
]


@pytest.mark.parametrize("tied", [True, False])
def test_a_quantized_network_stays_near_and_holds_no_other_matrix(tied):
    model = small_network(tied_embeddings=tied)
    state_before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    quantized = quantize_int8(model)
    torch.testing.assert_close(model.state_dict(), state_before, rtol=0, atol=0)
    assert all(tensor.dtype == torch.int8 for tensor in quantized.state_dict().values() if tensor.ndim == 2)
    assert not any(isinstance(module, nn.Linear | nn.Embedding) for module in quantized.modules())
    assert not list(quantized.parameters()) or not any(p.requires_grad for p in quantized.parameters())
    assert isinstance(quantized.embedding, Int8Embedding)
    assert (quantized.head.weight is quantized.embedding.weight) == tied

    tokens = random_tokens(4, 20)
    exact, found = model(tokens), quantized(tokens)
    assert ((found - exact).norm() / exact.norm()).item() < 0.05


@torch.no_grad()
def test_prefill_and_decode_equal_the_full_forward():
    model, tokens = quantize_int8(small_network()), random_tokens(1, 20)
    cache = model.new_cache(batch=1)
    pieces = [model(tokens[:, :9], cache=cache)] + [model(tokens[:, i : i + 1], cache=cache) for i in range(9, 20)]
    # Rounding may fall the other way where float32 sums differ in their last bit.
    full = model(tokens)
    assert float((torch.cat(pieces, dim=1) - full).norm() / full.norm()) < 0.02


@torch.no_grad()
def test_static_activations_come_back_from_files_and_stay_near():
    model, tokens = small_network(), random_tokens(4, 20)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    quantized = quantize_int8(model, input_scales={name: 0.1 for name in names if name.endswith("query_key_value")})
    assert isinstance(quantized.layers[0].attention.query_key_value, StaticInt8Linear)
    assert isinstance(quantized.layers[0].attention.output, Int8Linear)
    files = model_to_files(quantized, torch.bfloat16)
    read = model_from_files(files["config.json"], files["model.safetensors"])
    assert read.layers[0].attention.query_key_value.input_scale == 0.1
    assert model_to_files(read, torch.bfloat16) == files
    exact, found = model(tokens), quantized(tokens)
    assert float((found - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize("changes", [{}, {"tied_embeddings": False}, {"experts": {"experts": 3, "active": 1}}])
@pytest.mark.parametrize("table", [IntegerGrid(8), INT4])
@torch.no_grad()
def test_a_network_comes_back_smaller_and_is_counted_in_bits(changes, table):
    model, tokens = small_network(**changes), random_tokens(4, 20)
    quantized = quantize_packed(model, INT4, table)
    decoder = [module for module in quantized.layers.modules() if isinstance(module, PackedLinear)]
    assert decoder and not any(isinstance(module, nn.Linear | nn.Embedding) for module in quantized.modules())
    expected = (Int8Embedding, Int8Linear) if table.bits == 8 else (PackedEmbedding, PackedLinear)
    assert (type(quantized.embedding), type(quantized.head)) == expected
    files = model_to_files(quantized)
    read = model_from_files(files["config.json"], files["model.safetensors"])
    assert torch.equal(read(tokens), quantized(tokens)) and model_to_files(read) == files
    assert network_parameters(quantized) == network_parameters(model)
    assert 0.8 * network_parameters(model) < nonzero_parameters(quantized) < network_parameters(model)
    head = 61 * 32
    matrices = sum(one.sizes()["inputs"] * one.sizes()["outputs"] for one in decoder)
    if not changes:
        attention = dense_macs_per_token(model, 20) - matrices - head
        expected = 32 * matrices + 8 * table.bits * head + 1024 * attention
        assert bit_operations_per_token(quantized, 20) == pytest.approx(expected)
        exact = model(tokens)
        assert float((quantized(tokens) - exact).norm() / exact.norm()) < 0.3


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_prefill_and_decode_are_within_two_percent_of_the_float_cache(kind):
    model = small_network(attention=(kind, FullAttention()), context_length=100)
    changed, tokens = with_int8_cache(model), random_tokens(2, 100)
    assert torch.equal(changed(tokens), model(tokens)), "without a cache nothing changes"
    logits = []
    for one in (model, changed):
        cache = one.new_cache(batch=2)
        one(tokens[:, :50], cache=cache, counts=torch.tensor([50, 31]))
        cache.keep([1, 0])
        counts = torch.tensor([9, 12])
        logits.append([one(tokens[:, 50:62], cache=cache, counts=counts)[:, :9]])
        logits[-1] += [one(tokens[:, place : place + 1], cache=cache) for place in range(62, 80)]
    exact, found = (torch.cat(one, dim=1) for one in logits)
    assert 0 < float((found - exact).norm() / exact.norm()) < 0.02


@torch.no_grad()
def test_it_is_part_of_the_files_whatever_stands_in_the_network():
    """An attention that has lost heads, one by LSH, and a linear one, which keeps no keys; all in int8 besides."""
    model = small_network(layers=3, attention=(KINDS[2], FullAttention(), FullAttention()))
    model = remove_heads_and_neurons(model, 0.5, 1.0, random_tokens(4, 24)).eval()
    lsh = LshAttention(32, 1, 16, rounds=1, bucket_size=8, buckets=4, seed=0, scale=0.25)
    share_query_key(model.layers[1].attention, lsh)
    model.layers[1].attention = lsh
    model.layers[2].attention = LinearAttention.from_attention(model.layers[2].attention, 32, 1, 8)
    model = quantize_int8(with_int8_cache(model.eval()))
    files = model_to_files(model)
    read = model_from_files(files["config.json"], files["model.safetensors"])
    kinds = [type(layer.attention) for layer in read.layers]
    assert kinds == [Int8CacheAttention, Int8CacheLshAttention, LinearAttention]
    assert model_to_files(read) == files
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8]]
    texts = [generate_batch(one, prompts, 30, temperature=0.0, top_k=1, seed=0) for one in (model, read)]
    assert texts[0] == texts[1] and [len(text) for text in texts[0]] == [30, 30]
    cache = read.new_cache(batch=1)
    assert type(cache.layers[0]) is type(cache.layers[1]._entries) is Int8LayerCache


@torch.no_grad()
def test_the_changed_network_shares_its_tensors_and_float_caches_are_never_made():
    model = small_network(context_length=200)
    changed = with_int8_cache(model)
    assert isinstance(changed.layers[0].attention, Attention)
    assert changed.head.weight is changed.embedding.weight
    ours, theirs = dict(changed.named_parameters()), dict(model.named_parameters())
    assert all(ours[name].data_ptr() == one.data_ptr() and ours[name].requires_grad for name, one in theirs.items())
    caches = changed.new_cache(batch=1).bytes
    held = peak_tensor_bytes(lambda: changed.new_cache(batch=1).layers[0].keys_and_values(1))
    assert held < caches < 0.35 * model.new_cache(batch=1).bytes
