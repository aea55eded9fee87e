"""Attention by its definition: one dense matrix of scores, with a mask."""

import math
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor

from modeling.attention.kinds import AttentionKind, FullAttention, PooledAttention, PoolLevel, WindowAttention


def exact_start(kind: AttentionKind, position: int) -> int:
    """First token that the query at `position` sees exactly, from the docstrings of the kinds."""
    if isinstance(kind, FullAttention):
        return 0
    start = max(position - kind.window + 1, 0)
    return start - start % kind.levels[0].stride if isinstance(kind, PooledAttention) else start


def visible_blocks(kind: PooledAttention, position: int) -> list[list[int]]:
    """For each level, the blocks that the query sees: walking back from the exact tokens, block by block."""
    seen = []
    stop = exact_start(kind, position)
    for level, coarser in zip(kind.levels, [*kind.levels[1:], None], strict=True):
        start = 0
        if coarser is not None:
            start = max(stop - level.entries * level.stride, 0)
            start -= start % coarser.stride
        assert start % level.stride == stop % level.stride == 0, "a block reaches into a finer level"
        seen.append(list(range(start // level.stride, stop // level.stride)))
        stop = start
    assert stop == 0
    return seen


def dense_attention(projected: Tensor, kind: AttentionKind, poolings=(), scale: float | None = None) -> Tensor:
    """(batch, tokens, heads, 3, head_width) of one document -> (batch, tokens, heads, head_width)."""
    tokens, width = projected.shape[1], projected.shape[-1]
    queries, keys, values = projected.transpose(1, 2).unbind(3)
    bias = torch.full((tokens, tokens), -torch.inf, dtype=projected.dtype)
    for position in range(tokens):
        bias[position, exact_start(kind, position) : position + 1] = 0
        if isinstance(kind, PooledAttention) and kind.strided:
            for distance in range(2 * kind.window, position + 1, kind.window):
                bias[position, position - distance] = 0
    all_keys, all_values, all_bias = [keys], [values], [bias]
    entries = projected[..., 1:, :]
    strides = [1, *(level.stride for level in kind.levels)] if isinstance(kind, PooledAttention) else [1]
    for number, (finer, coarser) in enumerate(pairwise(strides)):
        ratio = coarser // finer
        blocks = [entries[:, start : start + ratio] for start in range(0, entries.shape[1] - ratio + 1, ratio)]
        if not blocks:
            break
        pool = poolings[number] if poolings else lambda block: block.mean(1)
        entries = torch.stack([pool(block) for block in blocks], dim=1)
        level_bias = torch.full((tokens, len(blocks)), -torch.inf, dtype=projected.dtype)
        for position in range(tokens):
            level_bias[position, visible_blocks(kind, position)[number]] = math.log(coarser)
        pooled_keys, pooled_values = entries.transpose(1, 2).unbind(3)
        all_keys.append(pooled_keys), all_values.append(pooled_values), all_bias.append(level_bias)
    scores = queries @ torch.cat(all_keys, 2).mT * (scale or 1 / math.sqrt(width)) + torch.cat(all_bias, -1)
    return (scores.softmax(-1) @ torch.cat(all_values, 2)).transpose(1, 2)


@st.composite
def pooled_kinds(draw) -> PooledAttention:
    stride = draw(st.integers(2, 6))
    strides = [stride]
    for _ in range(draw(st.integers(0, 2))):
        strides.append(strides[-1] * draw(st.integers(2, 3)))
    entries = [*(draw(st.integers(1, 6)) for _ in strides[:-1]), None]
    levels = [PoolLevel(stride=one, entries=some) for one, some in zip(strides, entries, strict=True)]
    return PooledAttention(
        window=draw(st.integers(stride, 30)),
        levels=levels,
        pooling=draw(st.sampled_from(["mean", "learnt"])),
        strided=draw(st.booleans()),
    )


kinds = st.one_of(
    st.just(FullAttention()), st.builds(WindowAttention, window=st.integers(1, 40)), pooled_kinds(), pooled_kinds()
)
"""Attention of any kind; the pooled ones twice as often."""
