import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeling.attention.int8_cache import Int8LayerCache
from modeling.attention.key_value_cache import LayerCache

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
