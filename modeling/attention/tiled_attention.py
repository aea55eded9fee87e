"""Attention over tiles: each is a dense attention of its own, and their softmaxes are merged into one.

A tile returns for each query the mean of its values and the log-sum-exp of its scores. Two tiles merge exactly: the
sums of exponentials add up, and each mean is weighted by its share of the sum (Milakov and Gimelshein 2018, 1805.02867;
FlashAttention, Dao et al. 2022, 2205.14135, 3.1). The backward pass of a tile needs only the merged result: with it in
place of the tile's own, the kernel's backward pass returns this tile's part of every gradient (Ring Attention, Liu et
al. 2023, 2310.01889, does the same across devices). Nothing of size queries x keys is kept, and no key is copied.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modeling.attention.context_parallel import TokenShare
from modeling.attention.kinds import AttentionKind
from modeling.attention.pooling import BlockPooling, add_pooling_gradients, pooled_levels
from modeling.attention.tiles import Tile, VisibleKeys, document_tiles, level_strides, row_tiles
from modeling.documents import Documents

HIDDEN = -1e30
"""Added to the score of a key that a query does not see; finite, so that a row without any key is not NaN."""


def tiled_attention(
    projected: Tensor,
    poolings: Sequence[BlockPooling],
    kind: AttentionKind,
    documents: Documents | None,
    scale: float,
    share: TokenShare | None = None,
) -> Tensor:
    """Weighted means of the values over the keys that each query sees in this kind of attention.

    Args:
        projected: (batch, tokens, heads, 3, head_width): query, key and value.
        poolings: one for each pooled level of the kind, finest first.
        kind: of attention.
        documents: of the whole rows, whose borders attention does not cross; None if every row is one document.
        scale: of the scores.
        share: set if `projected` has a part of each row's tokens.

    Returns:
        (batch, tokens, heads, head_width), contiguous.
    """
    parameters = [parameter for pooling in poolings for parameter in pooling.parameters()]
    row = None if share is None else share.gather(projected[..., 1:, :])
    first_query = 0 if share is None else share.first(projected.shape[1])
    plan = _Plan(kind, poolings, documents, scale, first_query)
    mixed = _TiledAttention.apply(plan, projected, row, *parameters)  # type: ignore[no-untyped-call]
    assert isinstance(mixed, Tensor)
    return mixed


@dataclass(frozen=True)
class _Plan:
    """All arguments but the tensors."""

    kind: AttentionKind
    poolings: Sequence[BlockPooling]
    documents: Documents | None
    scale: float
    first_query: int

    @property
    def strides(self) -> list[int]:
        return level_strides(self.kind)

    def parts(self, queries: int, keys: int) -> Iterable["_Part"]:
        """Tiles, the exact tokens' first."""
        if self.documents is None and queries == keys:
            tiles: Iterable[Tile] = row_tiles(self.kind, queries)
        else:
            own = slice(self.first_query, self.first_query + queries)
            starts = np.zeros((1, queries), np.int64) if self.documents is None else self.documents.starts[:, own]
            tiles = document_tiles(self.kind, starts, self.first_query)
        return (_Part(tile, math.log(self.strides[tile.level])) for tile in tiles)


class _TiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, projected: Tensor, row: Tensor | None, *parameters: Tensor) -> Tensor:
        """`row`: keys and values of whole rows, if `projected` has only a part of the tokens."""
        queries = projected[..., 0, :]
        exact = projected.detach()[..., 1:, :] if row is None else row.detach()
        sources = pooled_levels(exact, plan.poolings, plan.strides, plan.documents)
        mixed = torch.empty(queries.shape, dtype=queries.dtype, device=queries.device)
        sums = torch.empty(queries.shape[:-1], dtype=_at_least_float32(queries.dtype), device=queries.device)
        for part in plan.parts(projected.shape[1], exact.shape[1]):
            keys, values = part.keys(sources[part.tile.level])
            mean, log_sum = _tile_forward(part.queries(queries), keys, values, part.tile, plan.scale)
            part.merge(mixed, sums, mean, log_sum)
        ctx.save_for_backward(projected, row, mixed, sums, *sources[1:])
        ctx.plan = plan
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        projected, row, mixed, sums, *pooled = ctx.saved_tensors
        plan: _Plan = ctx.plan
        queries = projected[..., 0, :]
        sources = [projected[..., 1:, :] if row is None else row, *pooled]
        # Several tiles add to the same elements: a shorter type would round each time.
        dtype = _at_least_float32(projected.dtype)
        projected_gradient = torch.zeros(projected.shape, dtype=dtype, device=projected.device)
        query_gradient = projected_gradient[..., 0, :]
        source_gradients = [
            torch.zeros(source.shape, dtype=dtype, device=source.device) for source in sources[row is None :]
        ]
        if row is None:
            source_gradients.insert(0, projected_gradient[..., 1:, :])
        for part in plan.parts(projected.shape[1], sources[0].shape[1]):
            level = part.tile.level
            keys, values = part.keys(sources[level])
            gradients = _tile_backward(
                part.queries(gradient),
                part.queries(queries),
                keys,
                values,
                part.queries(mixed),
                part.queries(sums) - part.log_stride,
                part.tile,
                plan.scale,
            )
            targets = (part.queries(query_gradient), *part.keys(source_gradients[level]))
            for target, addend in zip(targets, gradients, strict=True):
                target.add_(addend)
        parameter_gradients = add_pooling_gradients(
            sources, source_gradients, plan.poolings, plan.strides, plan.documents
        )
        row_gradient = None if row is None else source_gradients[0].to(row.dtype)
        return None, projected_gradient.to(projected.dtype), row_gradient, *parameter_gradients


@dataclass(frozen=True)
class _Part:
    """A tile and its views of the batch."""

    tile: Tile
    log_stride: float
    """Logarithm of the level's stride: a pooled key weighs as much as the tokens of its block."""

    def queries(self, tensor: Tensor) -> Tensor:
        """(batch, tokens, heads, ...) -> (batch, heads, queries, ...) of this tile, a view; phases count as heads."""
        first, stop = self.tile.first_query, self.tile.query_stop
        return _by_head(tensor[:, first:stop], min(self.tile.phases, stop - first))

    def keys(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, entries, heads, 2, head_width) -> keys and values of this tile, (batch, heads, keys, head_width)."""
        entries = source[:, self.tile.first_key : self.tile.key_stop]
        # An incomplete last window has the first phases.
        heads = entries.shape[2] * min(self.tile.phases, self.tile.query_stop - self.tile.first_query)
        keys, values = (_by_head(part, self.tile.phases)[:, :heads] for part in entries.unbind(3))
        return keys, values

    def merge(self, mixed: Tensor, sums: Tensor, mean: Tensor, log_sum: Tensor) -> None:
        """Merge this tile's result into its queries' running result; the exact tokens' tiles come first."""
        running_mean, running_sum = self.queries(mixed), self.queries(sums)
        if self.tile.level == 0 and self.tile.phases == 1:
            running_mean.copy_(mean)
            running_sum.copy_(log_sum)
            return
        log_sum = log_sum + self.log_stride
        merged = torch.logaddexp(running_sum, log_sum)
        running_mean.mul_((running_sum - merged).exp().unsqueeze(-1))
        running_mean.add_(mean * (log_sum - merged).exp().unsqueeze(-1))
        running_sum.copy_(merged)


def _by_head(tensor: Tensor, phases: int) -> Tensor:
    """(batch, tokens, heads, ...) -> (batch, phases x heads, tokens / phases, ...), a view."""
    if phases > 1:
        tensor = torch.unflatten(tensor, 1, (-1, phases)).flatten(2, 3)
    return tensor.transpose(1, 2)


def _tile_forward(queries: Tensor, keys: Tensor, values: Tensor, tile: Tile, scale: float) -> tuple[Tensor, Tensor]:
    """Mean values (batch, heads, queries, head_width) and log-sum-exp of the scores (batch, heads, queries)."""
    mask = _tile_mask(tile, queries)
    if _has_flash_kernel(queries):
        mean, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            queries, keys, values, 0.0, tile.causal, attn_mask=mask, scale=scale
        )
        return mean, log_sum
    scores = _scores(queries, keys, tile, mask, scale)
    log_sum = scores.logsumexp(-1)
    return (scores - log_sum.unsqueeze(-1)).exp().to(values.dtype) @ values, log_sum


def _tile_backward(
    gradient: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mixed: Tensor,
    log_sum: Tensor,
    tile: Tile,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """This tile's part of the gradients of queries, keys and values; `mixed` and `log_sum` are the merged results."""
    mask = _tile_mask(tile, queries)
    if _has_flash_kernel(queries):
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(  # type: ignore[no-any-return]
            gradient, queries, keys, values, mixed, log_sum, 0.0, tile.causal, attn_mask=mask, scale=scale
        )
    weights = (_scores(queries, keys, tile, mask, scale) - log_sum.unsqueeze(-1)).exp().to(values.dtype)
    agreement = (gradient * mixed).sum(-1, keepdim=True)
    score_gradient = weights * (gradient @ values.mT - agreement) * scale
    return score_gradient @ keys, score_gradient.mT @ queries, weights.mT @ gradient


def _has_flash_kernel(queries: Tensor) -> bool:
    """False also in `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`, with which FLOP counters see every product."""
    return queries.device.type == "cpu" and torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]


def _scores(queries: Tensor, keys: Tensor, tile: Tile, mask: Tensor | None, scale: float) -> Tensor:
    scores = (queries @ keys.mT).to(_at_least_float32(queries.dtype)) * scale
    if tile.causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        return scores.masked_fill(~seen, HIDDEN)
    return scores if mask is None else scores + mask


def _tile_mask(tile: Tile, queries: Tensor) -> Tensor | None:
    if tile.visible is None:
        return None
    # Masks of documents belong to one batch; all others recur in every step and layer.
    build = _cached_mask if tile.visible.rows == 1 else _mask
    return build(tile.visible, queries.dtype, queries.device)


def _mask(visible: VisibleKeys, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(rows, 1, queries, keys), or (queries, keys) for all rows: 0 if a query sees a key, else `HIDDEN`."""
    first, stop = (_from_bytes(borders, visible.rows) for borders in (visible.first, visible.stop))
    keys = torch.arange(visible.keys, dtype=torch.int32)
    seen = (keys >= first) & (keys < stop)
    if visible.strided:
        distance = stop - 1 - keys
        on_stride = (distance >= 2 * visible.strided) & (distance % visible.strided == 0)
        seen |= on_stride & (keys >= _from_bytes(visible.starts, visible.rows))
    mask = torch.full(seen.shape, HIDDEN if dtype != torch.float16 else -6e4, dtype=dtype).masked_fill_(seen, 0)
    return (mask.squeeze(0) if visible.rows == 1 else mask.unsqueeze(1)).to(device)


_cached_mask = lru_cache(maxsize=256)(_mask)


def _from_bytes(borders: bytes, rows: int) -> Tensor:
    """(rows, queries, 1) int32."""
    return torch.frombuffer(bytearray(borders), dtype=torch.int32).view(rows, -1, 1)


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
