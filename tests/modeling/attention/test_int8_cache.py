import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeling.attention.int8_cache import Int8CacheAttention, Int8CacheLshAttention, Int8LayerCache, with_int8_cache
from modeling.attention.key_value_cache import LayerCache
from modeling.attention.kinds import FullAttention, PooledAttention, PoolLevel, WindowAttention
from modeling.attention.linear_attention import LinearAttention
from modeling.attention.lsh_attention import LshAttention, share_query_key
from modeling.attention.multi_head import Attention
from modeling.compression.structured_pruning import remove_heads_and_neurons
from modeling.decoding.generation import generate_batch
from modeling.evaluation.peak_memory import peak_tensor_bytes
from modeling.export.model_files import model_from_files, model_to_files
from modeling.layers.int8 import quantize_int8
from tests.modeling.networks import random_tokens, small_network

KINDS = [
    FullAttention(),
    WindowAttention(window=8),
    PooledAttention(window=8, levels=(PoolLevel(stride=4, entries=4), PoolLevel(stride=8)), pooling="learnt"),
]
EVERYTHING = slice(None), slice(0, 9)


@settings(max_examples=30, deadline=None)
@given(magnitude=st.sampled_from([0.0, 1e-5, 1.0, 1e5]), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_an_entry_is_off_by_half_a_step_of_its_own_at_most(magnitude, dtype):
    cache = Int8LayerCache([9], 2, heads=3, head_width=8, like=torch.zeros((), dtype=dtype))
    entries = torch.randn(2, 9, 3, 2, 8, dtype=dtype) * magnitude * torch.rand(2, 9, 3, 2, 1)
    cache.write(0, entries, EVERYTHING)
    bound = entries.abs().amax(-1, keepdim=True) / 254 * 1.0001
    for found in (cache.read(0, EVERYTHING), cache.keys_and_values(9)):
        assert found.dtype == dtype
        assert ((found - entries).abs() <= bound).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), size=st.sampled_from([0.3, 1.0, 3.0]))
def test_attention_over_it_is_within_the_bound_that_follows(seed, size):
    """Scores move by d = scale |q|_1 max |k| / 254, so weights by a factor within exp(2 d); values by max |v| / 254."""
    generator = torch.Generator().manual_seed(seed)
    entries = torch.randn(1, 20, 2, 2, 8, generator=generator, dtype=torch.float64) * size
    queries = torch.randn(1, 2, 1, 8, generator=generator, dtype=torch.float64)
    like, scale = torch.zeros((), dtype=torch.float64), 8**-0.5
    results = []
    for cache in (LayerCache([20], 1, 2, 8, like), Int8LayerCache([20], 1, 2, 8, like)):
        cache.write(0, entries, (slice(None), slice(0, 20)))
        keys, values = cache.keys_and_values(20).transpose(1, 2).unbind(3)
        results.append(nn.functional.scaled_dot_product_attention(queries, keys, values, scale=scale))
    largest_key, largest_value = entries.abs().amax((0, 1, 4)).unbind(-1)
    moved = scale * queries.abs().sum(-1)[0, :, 0] * largest_key / 254
    bound = largest_value / 254 + ((2 * moved).exp() - 1) * largest_value
    assert ((results[1] - results[0]).abs().amax((0, 2, 3)) <= bound).all()


def test_memory_is_a_byte_a_number_and_four_a_head():
    like = torch.zeros(())
    assert Int8LayerCache([255], 2, heads=4, head_width=32, like=like).bytes == 2 * 256 * 4 * 2 * (32 + 4)
    assert LayerCache([255], 2, heads=4, head_width=32, like=like).bytes == 2 * 256 * 4 * 2 * 32 * 4


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
    lsh = LshAttention(32, 1, 16, rounds=1, bucket_size=8, seed=0, scale=0.25)
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
    assert [type(layer) is Int8LayerCache for layer in cache.layers] == [True, True, False]


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
