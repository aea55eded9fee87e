import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from modeling.attention.kinds import FullAttention, PooledAttention, PoolLevel, WindowAttention
from modeling.attention.pooling import BlockPooling
from modeling.attention.tiled_attention import tiled_attention
from modeling.attention.tiles import computed_scores, level_strides, row_tiles
from modeling.documents import Documents
from tests.modeling.attention.reference import dense_attention, kinds

HEADS, WIDTH = 2, 4
SCALE = 1 / math.sqrt(WIDTH)


def random_projected(rows, tokens, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, tokens, HEADS, 3, WIDTH, dtype=dtype, generator=generator, requires_grad=True)


def poolings_of(kind):
    """With weights that are not at their first values."""
    strides = level_strides(kind)
    ratios = [coarser // finer for finer, coarser in pairwise(strides)]
    poolings = [BlockPooling(kind.pooling, HEADS, WIDTH, ratio).double() for ratio in ratios]
    for pooling in poolings:
        for number, parameter in enumerate(pooling.parameters()):
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    return poolings


def fast_attention(projected, kind, documents, poolings):
    return tiled_attention(projected, poolings, kind, documents, SCALE)


def assert_same(found, expected, inputs, **tolerances):
    torch.testing.assert_close(found, expected, **tolerances)
    direction = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, direction, materialize_grads=True),
        torch.autograd.grad(expected, inputs, direction, materialize_grads=True),
        **tolerances,
    )


@pytest.mark.parametrize("backend", ["flash", "math"])
@settings(max_examples=25, deadline=None)
@given(kind=kinds, tokens=st.integers(1, 150), seed=st.integers(0, 9))
def test_equals_dense_attention_with_gradients(backend, kind, tokens, seed):
    projected, poolings = random_projected(2, tokens, seed), poolings_of(kind)
    weights = [parameter for pooling in poolings for parameter in pooling.parameters()]
    expected = dense_attention(projected, kind, poolings)
    with sdpa_kernel([SDPBackend.MATH] if backend == "math" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        found = fast_attention(projected, kind, None, poolings)
        assert found.is_contiguous()
        assert_same(found, expected, [projected, *weights])


@pytest.mark.parametrize(
    "kind",
    [
        WindowAttention(window=300),
        PooledAttention(window=150, levels=(PoolLevel(stride=10, entries=20), PoolLevel(stride=80)), strided=True),
    ],
)
def test_equals_dense_attention_over_many_tiles(kind):
    projected = random_projected(1, 1500)
    assert_same(
        fast_attention(projected, kind, None, poolings_of(kind)),
        dense_attention(projected, kind),
        [projected],
    )


@settings(max_examples=15, deadline=None)
@given(kind=kinds, borders=st.lists(st.sets(st.integers(1, 99), max_size=4), min_size=1, max_size=2))
def test_each_document_is_as_if_alone(kind, borders):
    projected, poolings = random_projected(len(borders), 100), poolings_of(kind)
    starts, alone = np.zeros((len(borders), 100), dtype=np.int64), []
    for row, inner in enumerate(borders):
        cuts = list(pairwise([0, *sorted(inner), 100]))
        for start, stop in cuts:
            starts[row, start:stop] = start
        documents = [projected[row : row + 1, start:stop] for start, stop in cuts]
        alone.append(torch.cat([dense_attention(one, kind, poolings) for one in documents], dim=1))
    assert_same(fast_attention(projected, kind, Documents(starts), poolings), torch.cat(alone), [projected])


class Part:
    """Tokens `start` and after of rows that are whole elsewhere."""

    def __init__(self, start, whole):
        self.start, self.whole = start, whole

    def first(self, tokens):
        return self.start

    def gather(self, keys_and_values):
        return self.whole[..., 1:, :]


@settings(max_examples=20, deadline=None)
@given(kind=kinds, tokens=st.integers(2, 120), cut=st.floats(0, 1), border=st.integers(0, 119))
@example(kind=PooledAttention(window=3, levels=(PoolLevel(stride=3),)), tokens=2, cut=0.0, border=1)
def test_parts_of_a_row_together_are_the_row(kind, tokens, cut, border):
    projected, poolings = random_projected(2, tokens), poolings_of(kind)
    starts = np.zeros((2, tokens), dtype=np.int64)
    starts[1, border:] = border
    documents = Documents(starts) if 0 < border < tokens else None
    cut = max(1, min(int(cut * tokens), tokens - 1))
    parts = [
        tiled_attention(projected[:, start:stop], poolings, kind, documents, SCALE, Part(start, projected))
        for start, stop in ((0, cut), (cut, tokens))
    ]
    weights = [parameter for pooling in poolings for parameter in pooling.parameters()]
    assert_same(torch.cat(parts, dim=1), fast_attention(projected, kind, documents, poolings), [projected, *weights])


@settings(max_examples=40, deadline=None)
@given(kind=kinds, tokens=st.integers(2, 120), data=st.data())
def test_a_token_changes_nothing_before_it(kind, tokens, data):
    changed = data.draw(st.integers(0, tokens - 1))
    projected, poolings = random_projected(1, tokens).detach(), poolings_of(kind)
    other = projected.clone()
    other[:, changed] += 3.0
    found, expected = (fast_attention(one, kind, None, poolings) for one in (other, projected))
    assert torch.equal(found[:, :changed], expected[:, :changed])
    assert not torch.equal(found[:, changed], expected[:, changed])


@pytest.mark.parametrize(
    "kind", [WindowAttention(window=90), PooledAttention(window=90, levels=(PoolLevel(stride=8),), strided=True)]
)
def test_a_window_over_everything_is_full_attention(kind):
    projected = random_projected(2, 90)
    full = fast_attention(projected, FullAttention(), None, [])
    assert torch.equal(fast_attention(projected, kind, None, poolings_of(kind)), full)


def test_blocks_of_equal_tokens_give_full_attention():
    """A pooled key weighs as much as the tokens it stands for."""
    tokens, stride = 192, 8
    block_keys = random_projected(1, tokens // stride).detach()[..., 1:, :].repeat_interleave(stride, dim=1)
    projected = torch.cat((random_projected(1, tokens, 1).detach()[..., :1, :], block_keys), dim=3)
    kind = PooledAttention(window=16, levels=(PoolLevel(stride=stride, entries=4), PoolLevel(stride=stride * 2)))
    every_two_equal = (
        projected.unflatten(1, (-1, 2 * stride))[:, :, :1].expand(-1, -1, 2 * stride, -1, -1, -1).flatten(1, 2)
    )
    projected = torch.cat((projected[..., :1, :], every_two_equal[..., 1:, :]), dim=3)
    found = fast_attention(projected, kind, None, poolings_of(kind))
    torch.testing.assert_close(found, dense_attention(projected, FullAttention()))


@pytest.mark.parametrize(
    "kind", [WindowAttention(window=64), PooledAttention(window=64, levels=(PoolLevel(stride=16),))]
)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_shorter_types_stay_near(kind, dtype, error):
    exact = random_projected(2, 700)
    short = exact.detach().to(dtype).requires_grad_()
    results = []
    for projected in (exact, short):
        mixed = fast_attention(projected, kind, None, poolings_of(kind))
        results.append((mixed, torch.autograd.grad(mixed.square().sum(), projected)[0]))
    for wanted, found in zip(*results, strict=True):
        assert found.dtype == dtype
        assert float(((found - wanted).norm() / wanted.norm()).detach()) < error


def test_second_backward_gives_the_same():
    projected = random_projected(1, 200)
    kind = PooledAttention(window=16, levels=(PoolLevel(stride=8),))
    loss = fast_attention(projected, kind, None, poolings_of(kind)).square().sum()
    first, second = (torch.autograd.grad(loss, projected, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@settings(max_examples=30, deadline=None)
@given(kind=kinds, tokens=st.integers(1, 400))
def test_tiles_hold_each_visible_pair_once_and_count_all_they_compute(kind, tokens):
    total = 0
    for tile in row_tiles(kind, tokens):
        assert 0 <= tile.first_query < tile.query_stop <= tokens
        assert 0 <= tile.first_key < tile.key_stop <= tokens // level_strides(kind)[tile.level]
        total += tile.scores
    assert total == computed_scores(kind, tokens)


def test_scores_grow_in_proportion_to_the_tokens():
    kind = PooledAttention(window=256, levels=(PoolLevel(stride=16, entries=64), PoolLevel(stride=256)))
    per_token = [computed_scores(kind, tokens) / tokens for tokens in (2_048, 32_768)]
    assert per_token[1] < 1.3 * per_token[0]
    assert per_token[1] < 32_768 / 30
