"""Keys and values pooled over blocks of tokens, level by level.

- `BlockPooling`: one pooled entry from each block of entries; `ResizedPooling`: of an attention that has lost heads
- `pooled_levels`: all levels of rows of tokens; `add_pooling_gradients`: the way back
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from modeling.attention.tiles import level_start
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

    def gradients(self, blocks: Tensor, pooled_gradient: Tensor) -> list[Tensor]:
        """Of the blocks, as a view of `pooled_gradient` if it can be, then of the parameters; outside autograd."""
        if self.content is None:
            return [(pooled_gradient / self.ratio).unsqueeze(-4).expand(blocks.shape)]
        with torch.enable_grad():
            leaf = blocks.detach().requires_grad_()
            pooled = self(leaf)
            wanted = [leaf, *self.parameters()]
            return list(torch.autograd.grad(pooled, wanted, pooled_gradient.to(pooled.dtype)))


class ResizedPooling(BlockPooling):
    """A learnt `BlockPooling` for fewer heads than the network's config says."""

    def __init__(self, heads: int, head_width: int, ratio: int) -> None:
        super().__init__("learnt", heads, head_width, ratio)

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments."""
        assert self.content is not None
        heads, head_width = self.content.shape
        return {"heads": heads, "head_width": head_width, "ratio": self.ratio}


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
        `keys_and_values`, then for each pooled level (batch, entries, heads, 2, head_width). A document's entries begin
        at `level_start`; between documents there may be an entry that belongs to none.
    """
    levels = [keys_and_values]
    for pooling, stride in zip(poolings, strides, strict=False):
        levels.append(pooling(_blocks(levels[-1], pooling.ratio, stride, documents)))
    return levels


def add_pooling_gradients(
    levels: Sequence[Tensor],
    gradients: Sequence[Tensor],
    poolings: Sequence[BlockPooling],
    strides: Sequence[int],
    documents: Documents | None,
) -> list[Tensor]:
    """Take the gradients of pooled levels back to the finer ones they were pooled from, in place, coarsest first.

    Left to autograd the way back makes whole tensors of zeros for the slices of queries, keys and values: 446 MB at
    32,768 tokens of 6 x 64, where full attention takes 338 MB.

    Args:
        levels: from `pooled_levels`, with its other arguments.
        gradients: of each level, added to.

    Returns:
        Gradients of all parameters of the poolings, in their order.
    """
    of_parameters: list[Tensor] = []
    for number in reversed(range(len(poolings))):
        pooling, stride = poolings[number], strides[number]
        of_blocks, *own = pooling.gradients(
            _blocks(levels[number], pooling.ratio, stride, documents), gradients[number + 1]
        )
        _add_to_blocks(gradients[number], of_blocks, stride, documents)
        of_parameters = own + of_parameters
    return of_parameters


def _blocks(entries: Tensor, ratio: int, stride: int, documents: Documents | None) -> Tensor:
    """(batch, entries, ...) of a level with `stride` tokens each -> (batch, blocks, ratio, ...), a view if possible."""
    if documents is None:
        whole = entries.shape[1] // ratio
        return torch.unflatten(entries[:, : whole * ratio], 1, (whole, ratio))
    places = _places(entries, ratio, stride, documents)
    return torch.unflatten(entries.flatten(0, 1).index_select(0, places.flatten()), 0, places.shape)


def _add_to_blocks(entries: Tensor, addend: Tensor, stride: int, documents: Documents | None) -> None:
    """Add (batch, blocks, ratio, ...) to where `_blocks` takes them from."""
    ratio = addend.shape[2]
    if documents is None:
        _blocks(entries, ratio, stride, None).add_(addend)
    else:
        places = _places(entries, ratio, stride, documents).flatten()
        entries.view(-1, *entries.shape[2:]).index_add_(0, places, addend.flatten(0, 2).to(entries.dtype))


def _places(entries: Tensor, ratio: int, stride: int, documents: Documents) -> Tensor:
    """(batch, blocks, ratio) int64, places in all rows' entries one behind the other; any for blocks of no document."""
    rows, count = entries.shape[:2]
    firsts = np.zeros((rows, -(-count // ratio)), dtype=np.int64)
    for row, start, stop in documents.spans():
        blocks = (stop - start) // (stride * ratio)
        place = level_start(start, stride * ratio)
        firsts[row, place : place + blocks] = level_start(start, stride) + ratio * np.arange(blocks)
    places = firsts[..., None] + np.arange(ratio) + count * np.arange(rows)[:, None, None]
    # A row shorter than a block has one of no document, which would reach beyond the last row.
    return torch.from_numpy(np.minimum(places, rows * count - 1)).to(entries.device)
