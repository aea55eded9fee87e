"""Keys and values pooled over blocks of tokens, level by level.

- `BlockPooling`: one pooled entry from each block of entries; `ResizedPooling`: of an attention that has lost heads
- `pooled_levels`: all levels of rows of tokens; `add_pooling_gradients`: their backward pass
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from modeling.attention.tiles import level_start
from modeling.documents import Documents


class BlockPooling(nn.Module):
    """Pools blocks of `ratio` entries: by their mean, or by learned weights for each head, initially the mean.

    The weights are a softmax over the block of (value . content + place). They depend on values and not on keys,
    because keys are rotated by their positions, and pooling should not depend on a block's position.
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
        """Gradient of the blocks, a view of `pooled_gradient` if possible, then of the parameters; outside autograd."""
        if self.content is None:
            return [(pooled_gradient / self.ratio).unsqueeze(-4).expand(blocks.shape)]
        with torch.enable_grad():
            leaf = blocks.detach().requires_grad_()
            pooled = self(leaf)
            inputs = [leaf, *self.parameters()]
            return list(torch.autograd.grad(pooled, inputs, pooled_gradient.to(pooled.dtype)))


class ResizedPooling(BlockPooling):
    """A learned `BlockPooling` for fewer heads than in the network's config."""

    def __init__(self, heads: int, head_width: int, ratio: int) -> None:
        super().__init__("learnt", heads, head_width, ratio)

    def sizes(self) -> dict[str, Any]:
        """As in `modeling.layers.linear.Replacement`."""
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
        documents: their blocks count from their own start; None if every row is one document.

    Returns:
        `keys_and_values`, then for each pooled level (batch, entries, heads, 2, head_width). A document's entries begin
        at `level_start`; between two documents there may be an entry of neither.
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
    """Propagate the gradients of pooled levels to the finer levels they were pooled from, in place, coarsest first.

    Autograd would allocate whole tensors of zeros for the slices of queries, keys and values: 446 MB at 32,768 tokens
    of 6 x 64, for which full attention takes 338 MB.

    Args:
        levels: from `pooled_levels`, with its other arguments.
        gradients: of each level, added to.

    Returns:
        Gradients of all parameters of the poolings, in their order.
    """
    parameter_gradients: list[Tensor] = []
    for level in reversed(range(len(poolings))):
        pooling, stride = poolings[level], strides[level]
        blocks = _blocks(levels[level], pooling.ratio, stride, documents)
        block_gradient, *own = pooling.gradients(blocks, gradients[level + 1])
        _add_to_blocks(gradients[level], block_gradient, stride, documents)
        parameter_gradients = own + parameter_gradients
    return parameter_gradients


def _blocks(entries: Tensor, ratio: int, stride: int, documents: Documents | None) -> Tensor:
    """(batch, entries, ...) of a level with `stride` tokens each -> (batch, blocks, ratio, ...), a view if possible."""
    if documents is None:
        whole = entries.shape[1] // ratio
        return torch.unflatten(entries[:, : whole * ratio], 1, (whole, ratio))
    indices = _block_indices(entries, ratio, stride, documents)
    return torch.unflatten(entries.flatten(0, 1).index_select(0, indices.flatten()), 0, indices.shape)


def _add_to_blocks(entries: Tensor, addend: Tensor, stride: int, documents: Documents | None) -> None:
    """Add (batch, blocks, ratio, ...) to the entries that `_blocks` takes them from."""
    ratio = addend.shape[2]
    if documents is None:
        _blocks(entries, ratio, stride, None).add_(addend)
    else:
        indices = _block_indices(entries, ratio, stride, documents).flatten()
        entries.view(-1, *entries.shape[2:]).index_add_(0, indices, addend.flatten(0, 2).to(entries.dtype))


def _block_indices(entries: Tensor, ratio: int, stride: int, documents: Documents) -> Tensor:
    """(batch, blocks, ratio) int64, indices in the entries of all rows, flattened; any for blocks of no document."""
    rows, count = entries.shape[:2]
    firsts = np.zeros((rows, -(-count // ratio)), dtype=np.int64)
    for row, start, stop in documents.spans():
        blocks = (stop - start) // (stride * ratio)
        first = level_start(start, stride * ratio)
        firsts[row, first : first + blocks] = level_start(start, stride) + ratio * np.arange(blocks)
    indices = firsts[..., None] + np.arange(ratio) + count * np.arange(rows)[:, None, None]
    # A row shorter than a block has a block of no document, which could reach beyond the last row.
    return torch.from_numpy(np.minimum(indices, rows * count - 1)).to(entries.device)
