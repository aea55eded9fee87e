"""The decoder: embedding, pre-norm layers, final norm, head.

Laid out as GPT-NeoX with hidden_act="relu", use_parallel_residual=False and rotary_pct=1.0 (Black et al. 2022,
2204.06745), tensor by tensor, so that export there is a matter of names.
"""

import math

import torch
from torch import Tensor, nn

from modeling.attention import Attention
from modeling.feed_forward import FeedForward
from modeling.key_value_cache import KeyValueCache
from modeling.loss import chunked_token_losses, linear_cross_entropy
from modeling.rotary import Rotation, rotation_at
from modeling.transformer_config import TransformerConfig


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)) (pre-norm: Xiong et al. 2020, 2002.04745)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, config.norm_epsilon)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.LayerNorm(config.width, config.norm_epsilon)
        self.feed_forward = FeedForward(config)

    def forward(self, hidden: Tensor, rotation: Rotation, cache: KeyValueCache | None = None) -> Tensor:
        """(batch, tokens, width) -> (batch, tokens, width), the residual stream."""
        hidden = hidden + self.attention(self.attention_norm(hidden), rotation, cache)
        return hidden + self.feed_forward(self.feed_forward_norm(hidden))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """A decoder that predicts the next token at every position."""

    def __init__(self, config: TransformerConfig) -> None:
        """Build with random weights from torch's global generator; on the device of a `torch.device` context."""
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.width)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width, config.norm_epsilon)
        self.head = nn.Linear(config.width, config.vocabulary_size, bias=False)
        if config.tied_embeddings:
            self.tie_head()
        self._initialize()

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None, cache: list[KeyValueCache] | None = None
    ) -> Tensor:
        """Predict, or say how well the prediction does.

        The loss is computed in here, and not from logits outside, so that a data-parallel wrapper sees the whole
        step and logits of all tokens are never held.

        Args:
            tokens: (batch, tokens) int64.
            targets: (batch, tokens) int64, the token after each; None to predict.
            cache: from `new_cache`; `tokens` then go on from what it holds, and are added to it.

        Returns:
            Without targets: logits (batch, tokens, vocabulary). With targets: their mean cross-entropy in nats.
        """
        hidden = self.hidden_states(tokens, cache)
        if targets is None:
            return self.head(hidden)  # type: ignore[no-any-return]
        if torch.is_grad_enabled() and self.head.weight.requires_grad:
            return linear_cross_entropy(hidden, self.head.weight, targets)
        return chunked_token_losses(hidden, self.head, targets).mean()

    def hidden_states(self, tokens: Tensor, cache: list[KeyValueCache] | None = None) -> Tensor:
        """(batch, tokens) int64 -> (batch, tokens, width) after the final norm, before the head."""
        hidden = self.embedding(tokens)
        start = cache[0].length if cache else 0
        config = self.config
        rotation = rotation_at(start, tokens.shape[1], config.head_width, config.rotary_base, hidden)
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, rotation, cache[index] if cache else None)
        return self.final_norm(hidden)  # type: ignore[no-any-return]

    def new_cache(self, batch: int) -> list[KeyValueCache]:
        """An empty cache for each layer, with room for the context length."""
        config, like = self.config, self.final_norm.weight
        return [
            KeyValueCache(batch, config.heads, config.context_length, config.head_width, like)
            for _ in range(config.layers)
        ]

    def tie_head(self) -> None:
        """Let the head use the embedding's own tensors."""
        for name, tensor in self.embedding.state_dict(keep_vars=True).items():
            setattr(self.head, name, tensor)

    def _initialize(self) -> None:
        """GPT-2's rule (Radford et al. 2019, 2.3): N(0, std), divided by sqrt(2 layers) into the residual stream."""
        std = self.config.initializer_std
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                if name.endswith("bias"):
                    nn.init.zeros_(parameter)
            else:
                residual = name.endswith(("attention.output.weight", "feed_forward.down.weight"))
                nn.init.normal_(parameter, std=std / math.sqrt(2 * self.config.layers) if residual else std)
