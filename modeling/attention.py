"""Multi-head causal self-attention (Vaswani et al. 2017, 1706.03762, section 3.2) with rotary positions."""

import torch.nn.functional as F
from torch import Tensor, nn

from modeling.key_value_cache import KeyValueCache, causal_mask
from modeling.rotary import Rotation, rotate
from modeling.transformer_config import TransformerConfig


class Attention(nn.Module):
    """Each token looks at itself and at the tokens before it.

    The rows of `query_key_value` go head by head (query, key and value of head 0, then of head 1), as in GPT-NeoX and
    Megatron-LM: what belongs to one head lies together, and export copies the matrix as it is.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.head_width = config.head_width
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, hidden: Tensor, rotation: Rotation, cache: KeyValueCache | None = None) -> Tensor:
        """Mix values over the positions so far.

        Args:
            hidden: (batch, tokens, width), normed.
            rotation: of these tokens' positions.
            cache: earlier positions, which these tokens look at as well and are added to.

        Returns:
            (batch, tokens, width), to be added to the residual stream.
        """
        batch, tokens, width = hidden.shape
        projected = self.query_key_value(hidden).view(batch, tokens, self.heads, 3, self.head_width)
        queries, keys, values = (part.transpose(1, 2) for part in rotate(projected, rotation).unbind(3))
        if cache is not None:
            keys, values = cache.append(keys, values)
        # A single query may look everywhere. Several behind a cache need a mask: is_causal aligns with the first key.
        behind_cache = 1 < tokens < keys.shape[2]
        mixed = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=causal_mask(tokens, keys.shape[2], hidden.device) if behind_cache else None,
            is_causal=tokens == keys.shape[2],
        )
        return self.output(mixed.transpose(1, 2).reshape(batch, tokens, width))  # type: ignore[no-any-return]
