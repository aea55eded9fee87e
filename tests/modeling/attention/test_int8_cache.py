import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeling.attention.int8_cache import Int8LayerCache, integer_attention
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


def entries_of(keys, values):
    """Codes (1, used, heads, 2, head_width) and scales, as a cache holds them."""
    cache = Int8LayerCache([keys.shape[2]], 1, keys.shape[1], keys.shape[3], like=torch.zeros(()))
    cache.write(0, torch.stack((keys, values), dim=3).transpose(1, 2), (slice(None), slice(0, keys.shape[2])))
    return cache.codes_and_scales(keys.shape[2])


def test_integer_attention_is_what_its_codes_say():
    """By hand, in 64-bit integers: scores of int8, weights of 15 bits with the values' scales in them."""
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(1, 2, tokens, 8) for tokens in (3, 20, 20))
    mask = torch.zeros(3, 20).masked_fill(torch.arange(20) > torch.tensor([5, 12, 19])[:, None], -torch.inf)
    codes, scales = entries_of(keys, values)
    mixed = integer_attention(queries, codes, scales, 0.3, mask)
    for head, query, seen in ((0, 0, 6), (1, 1, 13), (1, 2, 20)):
        vector = queries[0, head, query].double()
        query_codes = (vector * 127 / vector.abs().max()).round().long()
        own, own_scales = codes[0, :seen, head].long(), scales[0, :seen, head, :, 0].double()
        scores = (own[:, 0] @ query_codes) * vector.abs().max() / 127 * own_scales[:, 0] * 0.3
        weights = (scores - scores.max()).exp()
        scaled = weights * own_scales[:, 1]
        weight_codes = (scaled * 32_767 / scaled.max()).round().long()
        expected = (weight_codes @ own[:, 1]) * scaled.max() / 32_767 / weights.sum()
        torch.testing.assert_close(mixed[0, head, query].double(), expected, rtol=0, atol=2e-4 * expected.abs().max())


def test_many_small_weights_are_not_lost_to_a_large_one():
    """One key has 600 times the weight of any of the others, which together outweigh it: int8 would drop them all."""
    keys = torch.zeros(1, 1, 3_001, 16)
    keys[..., 0, 0] = 6.4
    values = torch.ones(1, 1, 3_001, 16)
    values[..., 0, :] = -1
    query = torch.zeros(1, 1, 1, 16)
    query[..., 0] = 1.0
    mixed = integer_attention(query, *entries_of(keys, values), 1.0, None)
    exact = nn.functional.scaled_dot_product_attention(query, keys, values, scale=1.0)
    assert exact.mean() > 0.6
    torch.testing.assert_close(mixed, exact, rtol=0, atol=0.01)


def test_nan_stays_nan():
    keys, values = torch.randn(2, 1, 1, 5, 8).unbind(0)
    query = torch.randn(1, 1, 1, 8)
    for broken in (keys, values, query):
        good = broken[..., 0, 0].clone()
        broken[..., 0, 0] = torch.nan
        assert integer_attention(query, *entries_of(keys, values), 1.0, None).isnan().any()
        broken[..., 0, 0] = good
