"""Multi-head causal self-attention of any kind (Vaswani et al. 2017, 1706.03762, 3.2), with rotary positions."""

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention.context_parallel import TokenShare
from modeling.attention.key_value_cache import CacheStep, CacheUse, LayerCache
from modeling.attention.kinds import AttentionKind, FullAttention, PooledAttention
from modeling.attention.pooling import BlockPooling, pooled_levels
from modeling.attention.tiled_attention import tiled_attention
from modeling.attention.tiles import level_strides
from modeling.documents import Documents
from modeling.rotary import Rotation, rotate


@dataclass(frozen=True)
class LayerContext:
    """Inputs that all layers of a forward pass share."""

    rotation: Rotation
    """For the positions of the tokens."""
    documents: Documents | None
    """Attention does not cross their borders; None if every row is one document."""


class Attention(nn.Module):
    """Softmax attention: each token sees itself and the tokens before it that its kind of attention selects.

    The rows of `query_key_value` are ordered by head (query, key and value of head 0, then of head 1), as in GPT-NeoX
    and Megatron-LM: the rows of a head are adjacent, and export copies the matrix unchanged.
    """

    def __init__(self, kind: AttentionKind, width: int, heads: int, scale: float) -> None:
        """Build for `heads` heads of width / heads numbers each; `scale` multiplies the scores."""
        super().__init__()
        self.kind, self.scale = kind, scale
        self.head_width = width // heads
        self.share: TokenShare | None = None
        """Set if several processes share each row's tokens."""
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.poolings = nn.ModuleList(
            BlockPooling(kind.pooling, heads, self.head_width, coarser // finer)
            for finer, coarser in pairwise(level_strides(kind))
            if isinstance(kind, PooledAttention)
        )

    @property
    def heads(self) -> int:
        """Heads of this layer (on this process), also if its matrices have been replaced."""
        matrix = self.query_key_value
        outputs = matrix.out_features if isinstance(matrix, nn.Linear) else matrix.sizes()["outputs"]
        return int(outputs) // (3 * self.head_width)

    def forward(self, hidden: Tensor, context: LayerContext, cache: CacheUse | None = None) -> Tensor:
        """Weighted means of the values over the tokens that each token sees.

        Args:
            hidden: (batch, tokens, width), normed.
            context: rotation and documents of these tokens.
            cache: of earlier tokens, which these tokens see too; they are added to it.

        Returns:
            (batch, tokens, width), to be added to the residual stream.
        """
        # -1: tensor-parallel processes have some of the heads each.
        projected = self.query_key_value(hidden).unflatten(-1, (-1, 3, self.head_width))
        projected = rotate(projected, context.rotation)
        if cache is not None and isinstance(cache.step, CacheStep):
            mixed = self._after_cache(projected, cache.layer, cache.step)
        else:
            mixed = self._from_start(projected, context.documents, cache)
        return self.output(mixed.flatten(2))  # type: ignore[no-any-return]

    def _from_start(self, projected: Tensor, documents: Documents | None, cache: CacheUse | None) -> Tensor:
        """Attention of tokens without earlier tokens: (batch, tokens, heads, head_width)."""
        if cache is not None:
            assert isinstance(cache.step, list)
            levels = pooled_levels(projected[..., 1:, :], self._poolings, level_strides(self.kind), documents)
            for level, (entries, slots) in enumerate(zip(levels, cache.step, strict=True)):
                cache.layer.write(level, entries, slots)
        if isinstance(self.kind, FullAttention) and documents is None and self.share is None:
            queries, keys, values = projected.transpose(1, 2).unbind(3)
            mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=self.scale)
            return mixed.transpose(1, 2)
        return tiled_attention(projected, self._poolings, self.kind, documents, self.scale, self.share)

    @property
    def _poolings(self) -> list[BlockPooling]:
        return list(self.poolings)  # type: ignore[arg-type]

    def _after_cache(self, projected: Tensor, cache: LayerCache, step: CacheStep) -> Tensor:
        """Attention of new tokens to themselves and to the cached tokens: (batch, tokens, heads, head_width)."""
        cache.write(0, projected[..., 1:, :], step.tokens)
        for level, (blocks, pooling) in enumerate(zip(step.pooled, self.poolings, strict=True), start=1):
            if blocks is not None:
                cache.write(level, pooling(cache.read(level - 1, blocks.sources)), blocks.targets)
        return self._over_entries(projected[..., 0, :].transpose(1, 2), cache, step.used, step.mask).transpose(1, 2)

    def _over_entries(self, queries: Tensor, cache: LayerCache, used: int, mask: Tensor | None) -> Tensor:
        """Attention of queries (batch, heads, new, head_width) over the first `used` cached entries: the same shape."""
        keys, values = cache.keys_and_values(used).transpose(1, 2).unbind(3)
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=self.scale)
