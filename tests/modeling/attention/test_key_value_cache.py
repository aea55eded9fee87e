from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.attention.key_value_cache import MAX_NEW_TOKENS, DecoderCache
from modeling.attention.kinds import FullAttention, PooledAttention, PoolLevel, WindowAttention
from tests.modeling.attention.reference import kinds
from tests.modeling.networks import random_tokens, small_network

CONTEXT = 230


def network(kind):
    """Two layers: one of the kind, one of full attention; long enough for rings to go round."""
    return small_network(attention=(kind, FullAttention()), context_length=CONTEXT).double()


@settings(max_examples=25, deadline=None)
@given(kind=kinds, cuts=st.sets(st.integers(1, CONTEXT - 1), min_size=1, max_size=8))
@torch.no_grad()
def test_prefill_and_decode_in_any_pieces_equal_the_full_forward(kind, cuts):
    model, tokens = network(kind), random_tokens(2, CONTEXT)
    cache = model.new_cache(batch=2)
    borders = [0, *sorted(cuts), CONTEXT]
    pieces = [model(tokens[:, start:stop], cache=cache) for start, stop in pairwise(borders)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens))


@settings(max_examples=15, deadline=None)
@given(
    kind=kinds,
    lengths=st.lists(st.integers(1, 100), min_size=2, max_size=3),
    more=st.lists(st.lists(st.integers(0, 12), min_size=3, max_size=3), max_size=4),
)
@torch.no_grad()
def test_rows_of_any_lengths_are_each_as_if_alone(kind, lengths, more):
    model = network(kind)
    everything = random_tokens(len(lengths), CONTEXT)
    cache = model.new_cache(batch=len(lengths))
    held = [0] * len(lengths)
    seen = [[] for _ in lengths]
    for counts in [lengths, *more, [1] * len(lengths)]:
        counts = counts[: len(lengths)]
        tokens = torch.full((len(lengths), max(counts)), 60)
        for row, count in enumerate(counts):
            tokens[row, :count] = everything[row, held[row] : held[row] + count]
        if not max(counts):
            continue
        logits = model(tokens, cache=cache, counts=torch.tensor(counts))
        for row, count in enumerate(counts):
            seen[row].append(logits[row, :count])
            held[row] += count
    for row, length in enumerate(held):
        torch.testing.assert_close(torch.cat(seen[row]), model(everything[row : row + 1, :length])[0])


@torch.no_grad()
def test_rows_that_stay_go_on_as_before():
    model, tokens = network(PooledAttention(window=8, levels=(PoolLevel(stride=4),))), random_tokens(3, 60)
    cache = model.new_cache(batch=3)
    model(tokens[:, :50], cache=cache, counts=torch.tensor([50, 20, 33]))
    cache.keep([0, 2])
    found = model(torch.stack((tokens[0, 50:51], tokens[2, 33:34])), cache=cache)
    torch.testing.assert_close(found[0, 0], model(tokens[:1, :51])[0, -1])
    torch.testing.assert_close(found[1, 0], model(tokens[2:, :34])[0, -1])


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        (FullAttention(), 30_000),
        (WindowAttention(window=256), 256 + MAX_NEW_TOKENS),
        # 256 + 16 + the piece exactly; of the finer level what lies within these, its 64 entries and a coarser block.
        (
            PooledAttention(window=256, levels=(PoolLevel(stride=16, entries=64), PoolLevel(stride=256))),
            256 + 16 + MAX_NEW_TOKENS + (256 + 16 + MAX_NEW_TOKENS + 64 * 16 + 256) // 16 + 1 + 30_000 // 256 + 1,
        ),
    ],
)
def test_memory_is_bounded_by_what_can_be_seen(kind, entries):
    cache = DecoderCache([kind], 2, 30_000, heads=[3], head_width=8, like=torch.zeros(()))
    padding = 1 + len(getattr(kind, "levels", ()))
    assert cache.bytes == 2 * (entries + padding) * 3 * 2 * 8 * 4


@torch.no_grad()
def test_more_than_the_context_is_our_own_mistake():
    model = network(FullAttention())
    with pytest.raises(AssertionError, match="before one overflows"):
        model(random_tokens(1, CONTEXT + 1), cache=model.new_cache(batch=1))
