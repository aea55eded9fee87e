"""Attention over tiles: each is a dense attention of its own, and their softmaxes are joined into one.

A tile gives each query the mean of its values and the log-sum-exp of its scores. Two tiles join exactly: the sums of
exponentials add up, and each mean counts by its share of the sum (Milakov and Gimelshein 2018, 1805.02867;
FlashAttention, Dao et al. 2022, 2205.14135, 3.1). For the way back a tile needs only the joined result: with it in
place of its own, the kernel's own backward pass gives this tile's part of every gradient (Ring Attention, Liu et al.
2023, 2310.01889, does the same across devices). Nothing of size queries x keys is kept, and no key is copied.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from modeling.attention_kinds import AttentionKind
from modeling.attention_tiles import Tile, VisibleKeys, document_tiles, level_strides, tiles_of
from modeling.documents import Documents
from modeling.pooling import BlockPooling, add_pooling_gradients, pooled_levels

HIDDEN = -1e30
"""Added to the score of a key that a query does not see; finite, so that a row without any key stays a number."""


def joined_attention(
    projected: Tensor,
    poolings: Sequence[BlockPooling],
    kind: AttentionKind,
    documents: Documents | None,
    scale: float,
) -> Tensor:
    """Mix values over the keys that the kind of attention lets each query see.

    Args:
        projected: (batch, tokens, heads, 3, head_width): query, key and value.
        poolings: one for each pooled level of the kind, finest first.
        kind: of attention.
        documents: of the rows, which attention does not leave; None where every row is one.
        scale: of the scores.

    Returns:
        (batch, tokens, heads, head_width), contiguous.
    """
    parameters = [parameter for pooling in poolings for parameter in pooling.parameters()]
    mixed = _JoinedAttention.apply(projected, poolings, kind, documents, scale, *parameters)  # type: ignore[no-untyped-call]
    assert isinstance(mixed, Tensor)
    return mixed


class _JoinedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        poolings: Sequence[BlockPooling],
        kind: AttentionKind,
        documents: Documents | None,
        scale: float,
        *parameters: Tensor,
    ) -> Tensor:
        queries = projected[..., 0, :]
        sources = pooled_levels(projected.detach()[..., 1:, :], poolings, level_strides(kind), documents)
        mixed = torch.empty(queries.shape, dtype=queries.dtype, device=queries.device)
        sums = torch.empty(queries.shape[:-1], dtype=_at_least_float32(queries.dtype), device=queries.device)
        for part in _parts(kind, documents, projected.shape[1]):
            keys, values = part.keys(sources[part.tile.level])
            mean, log_sum = _tile_forward(part.queries(queries), keys, values, part.tile, scale)
            part.join(mixed, sums, mean, log_sum)
        ctx.save_for_backward(projected, mixed, sums, *sources[1:])
        ctx.poolings, ctx.kind, ctx.documents, ctx.scale = poolings, kind, documents, scale
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        projected, mixed, sums, *pooled = ctx.saved_tensors
        queries = projected[..., 0, :]
        sources = [projected[..., 1:, :], *pooled]
        # Several tiles add to one place: a shorter type would lose some of it each time.
        total = _at_least_float32(projected.dtype)
        projected_gradient = torch.zeros(projected.shape, dtype=total, device=projected.device)
        query_gradient = projected_gradient[..., 0, :]
        source_gradients = [
            projected_gradient[..., 1:, :],
            *(torch.zeros(one.shape, dtype=total, device=one.device) for one in pooled),
        ]
        for part in _parts(ctx.kind, ctx.documents, projected.shape[1]):
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
                ctx.scale,
            )
            targets = (part.queries(query_gradient), *part.keys(source_gradients[level]))
            for target, one in zip(targets, gradients, strict=True):
                target.add_(one)
        of_parameters = add_pooling_gradients(
            sources, source_gradients, ctx.poolings, level_strides(ctx.kind), ctx.documents
        )
        return projected_gradient.to(projected.dtype), None, None, None, None, *of_parameters


@dataclass(frozen=True)
class _Part:
    """A tile and its views of the batch."""

    tile: Tile
    log_stride: float
    """A pooled key weighs as much as the tokens it stands for."""

    def queries(self, tensor: Tensor) -> Tensor:
        """(batch, tokens, heads, ...) -> this tile's (batch, heads, queries, ...), a view; phases count as heads."""
        first, stop = self.tile.first_query, self.tile.query_stop
        return _by_head(tensor[:, first:stop], min(self.tile.phases, stop - first))

    def keys(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, entries, heads, 2, head_width) -> this tile's keys and values: (batch, heads, keys, head_width)."""
        entries = source[:, self.tile.first_key : self.tile.key_stop]
        # The phases of an incomplete last window are the first ones.
        heads = entries.shape[2] * min(self.tile.phases, self.tile.query_stop - self.tile.first_query)
        keys, values = (_by_head(one, self.tile.phases)[:, :heads] for one in entries.unbind(3))
        return keys, values

    def join(self, mixed: Tensor, sums: Tensor, mean: Tensor, log_sum: Tensor) -> None:
        """Add this tile's result to what its queries have so far; the exact tokens' tiles come first."""
        so_far, log_so_far = self.queries(mixed), self.queries(sums)
        if self.tile.level == 0 and self.tile.phases == 1:
            so_far.copy_(mean)
            log_so_far.copy_(log_sum)
            return
        log_sum = log_sum + self.log_stride
        joined = torch.logaddexp(log_so_far, log_sum)
        so_far.mul_((log_so_far - joined).exp().unsqueeze(-1)).add_(mean * (log_sum - joined).exp().unsqueeze(-1))
        log_so_far.copy_(joined)


def _parts(kind: AttentionKind, documents: Documents | None, length: int) -> Iterable[_Part]:
    strides = level_strides(kind)
    tiles = tiles_of(kind, length) if documents is None else document_tiles(kind, documents.starts)
    return (_Part(tile, math.log(strides[tile.level])) for tile in tiles)


def _by_head(tensor: Tensor, phases: int) -> Tensor:
    """(batch, tokens, heads, ...) -> (batch, phases x heads, tokens / phases, ...), a view."""
    if phases > 1:
        tensor = torch.unflatten(tensor, 1, (-1, phases)).flatten(2, 3)
    return tensor.transpose(1, 2)


def _tile_forward(queries: Tensor, keys: Tensor, values: Tensor, tile: Tile, scale: float) -> tuple[Tensor, Tensor]:
    """Mean values (batch, heads, queries, head_width) and log-sum-exp of the scores (batch, heads, queries)."""
    mask = _mask_of(tile, queries)
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
    """This tile's part of the gradients of queries, keys and values, given the joined result."""
    mask = _mask_of(tile, queries)
    if _has_flash_kernel(queries):
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(  # type: ignore[no-any-return]
            gradient, queries, keys, values, mixed, log_sum, 0.0, tile.causal, attn_mask=mask, scale=scale
        )
    weights = (_scores(queries, keys, tile, mask, scale) - log_sum.unsqueeze(-1)).exp().to(values.dtype)
    agreement = (gradient * mixed).sum(-1, keepdim=True)
    score_gradient = weights * (gradient @ values.mT - agreement) * scale
    return score_gradient @ keys, score_gradient.mT @ queries, weights.mT @ gradient


def _has_flash_kernel(queries: Tensor) -> bool:
    """False also inside `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`, under which every product is countable."""
    return queries.device.type == "cpu" and torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]


def _scores(queries: Tensor, keys: Tensor, tile: Tile, mask: Tensor | None, scale: float) -> Tensor:
    scores = (queries @ keys.mT).to(_at_least_float32(queries.dtype)) * scale
    if tile.causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        return scores.masked_fill(~seen, HIDDEN)
    return scores if mask is None else scores + mask


def _mask_of(tile: Tile, queries: Tensor) -> Tensor | None:
    if tile.visible is None:
        return None
    # Masks of documents are those of one batch; all others come again in every step and layer.
    make = _repeated_mask if tile.visible.rows == 1 else _mask
    return make(tile.visible, queries.dtype, queries.device)


def _mask(visible: VisibleKeys, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(rows, 1, queries, keys), or (queries, keys) for all rows: 0 where a query sees a key, `HIDDEN` elsewhere."""
    first, stop = (_numbers(places, visible.rows) for places in (visible.first, visible.stop))
    places = torch.arange(visible.keys, dtype=torch.int32)
    seen = (places >= first) & (places < stop)
    if visible.strided:
        distance = stop - 1 - places
        far = (distance >= 2 * visible.strided) & (distance % visible.strided == 0)
        seen |= far & (places >= _numbers(visible.starts, visible.rows))
    mask = torch.full(seen.shape, HIDDEN if dtype != torch.float16 else -6e4, dtype=dtype).masked_fill_(seen, 0)
    return (mask.squeeze(0) if visible.rows == 1 else mask.unsqueeze(1)).to(device)


_repeated_mask = lru_cache(maxsize=256)(_mask)


def _numbers(places: bytes, rows: int) -> Tensor:
    """(rows, queries, 1) int32."""
    return torch.frombuffer(bytearray(places), dtype=torch.int32).view(rows, -1, 1)


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
