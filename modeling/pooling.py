"""Keys and values pooled over blocks of tokens, level by level.

- `BlockPooling`: one pooled entry from each block of entries
- `pooled_levels`: all levels of a stretch of tokens
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from modeling.attention_tiles import level_start
from modeling.documents import Documents


class BlockPooling(nn.Module):
    """Pools blocks of `ratio` entries: by their mean, or by weights for each head, which start as the mean.

    Learnt weights are a softmax over the block of (value . content + place). Values are asked and not keys, because
    keys are rotated by their positions, and a block should be pooled in the same way wherever it stands.
    """

    def __init__(self, pooling: Literal["mean", "learnt"], heads: int, head_width: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.content: nn.Parameter | None = None
        self.place: nn.Parameter | None = None
        if pooling == "learnt":
            self.content = nn.Parameter(torch.zeros(heads, head_width))
            self.place = nn.Parameter(torch.zeros(heads, ratio))

    def forward(self, blocks: Tensor) -> Tensor:
        """(..., ratio, heads, 2, head_width), keys and values -> (..., heads, 2, head_width)."""
        if self.content is None or self.place is None:
            return blocks.mean(-4)
        scores = (blocks[..., 1, :] * self.content).sum(-1) + self.place.T
        weights = scores.softmax(-2).to(blocks.dtype)
        return (blocks * weights[..., None, None]).sum(-4)


def pooled_levels(
    keys_and_values: Tensor, poolings: Sequence[BlockPooling], strides: Sequence[int], documents: Documents | None
) -> list[Tensor]:
    """Pool each document's complete blocks, and blocks of those.

    Args:
        keys_and_values: (batch, tokens, heads, 2, head_width).
        poolings: one for each pooled level, finest first.
        strides: tokens per entry: 1, then those of the pooled levels.
        documents: whose blocks are counted from their own start; None where every row is one document.

    Returns:
        For each level, (batch, entries, heads, 2, head_width); a document's entries begin at `level_start`. Between
        documents there may be an entry that belongs to none.
    """
    levels = [keys_and_values]
    for pooling, (finer, _) in zip(poolings, pairwise(strides), strict=True):
        levels.append(pooling(_blocks(levels[-1], pooling.ratio, finer, documents)))
    return levels[1:]


def _blocks(entries: Tensor, ratio: int, stride: int, documents: Documents | None) -> Tensor:
    """(batch, entries, ...) of a level with `stride` tokens each -> (batch, blocks, ratio, ...)."""
    if documents is None:
        whole = entries.shape[1] // ratio
        return torch.unflatten(entries[:, : whole * ratio], 1, (whole, ratio))
    rows, count = entries.shape[:2]
    firsts = np.zeros((rows, -(-count // ratio)), dtype=np.int64)
    for row, start, stop in documents.spans():
        blocks = (stop - start) // (stride * ratio)
        place = level_start(start, stride * ratio)
        firsts[row, place : place + blocks] = level_start(start, stride) + ratio * np.arange(blocks)
    places = firsts[..., None] + np.arange(ratio) + count * np.arange(rows)[:, None, None]
    index = torch.from_numpy(places).to(entries.device)
    return torch.unflatten(entries.flatten(0, 1).index_select(0, index.flatten()), 0, index.shape)
