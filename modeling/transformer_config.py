"""The network's config, and what follows from it by counting: parameters and FLOPs. Imports no torch.

- `TransformerShape`: what a run config chooses
- `TransformerConfig`: the shape and the vocabulary, which the tokenizer decides
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


def _four_times_width(fields: dict[str, Any]) -> int:
    return 4 * int(fields["width"])


class TransformerShape(BaseModel):
    """Shape of a pre-norm decoder with rotary positions and a ReLU feed-forward."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    layers: int = Field(default=6, gt=0, description="decoder layers, each attention and feed-forward")
    width: int = Field(default=256, gt=0, description="numbers per token in the residual stream (d_model)")
    heads: int = Field(default=4, gt=0, description="attention heads; each gets width / heads numbers, an even count")
    feed_forward_width: int = Field(
        default_factory=_four_times_width,
        gt=1,
        description="neurons of the feed-forward; 4 x width where left out (Vaswani et al. 2017, 1706.03762, 3.3)",
    )
    context_length: int = Field(default=256, gt=0, description="tokens a prediction can look back on in training")
    rotary_base: float = Field(
        default=10_000, gt=1, description="base of the rotary wavelengths (RoFormer, 2104.09864, 3.2.2)"
    )
    tied_embeddings: bool = Field(
        default=True, description="the head uses the embedding's table (Press and Wolf 2017, 1608.05859)"
    )
    norm_epsilon: float = Field(default=1e-5, gt=0, description="added to the variance in LayerNorm (GPT-NeoX)")
    initializer_std: float = Field(
        default=0.02, gt=0, description="standard deviation of initial weights (GPT-2); residual outputs get less"
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> "TransformerShape":
        if self.width % 2:
            raise ValueError(
                f"width is {self.width}; it must be even, because rotary positions turn pairs of numbers: "
                f"use {self.width - 1 or 2} or {self.width + 1}"
            )
        if self.width % (2 * self.heads):
            fitting = [heads for heads in range(1, self.width // 2 + 1) if self.width % (2 * heads) == 0]
            raise ValueError(
                f"heads is {self.heads}, which does not divide width {self.width} into even head widths "
                f"(rotary positions turn pairs); heads can be {', '.join(map(str, fitting))}"
            )
        return self

    @property
    def head_width(self) -> int:
        """Numbers per token and head."""
        return self.width // self.heads


class TransformerConfig(TransformerShape):
    """Everything that decides the network's tensors."""

    vocabulary_size: int = Field(gt=1, description="tokens the network knows; the tokenizer's vocabulary")

    def embedding_parameters(self) -> int:
        """Parameters of the embedding and the head: one table if they are tied, else two."""
        return (1 if self.tied_embeddings else 2) * self.vocabulary_size * self.width

    def parameters(self) -> int:
        """All parameters, each counted once."""
        attention = 4 * self.width**2 + 4 * self.width
        feed_forward = 2 * self.width * self.feed_forward_width + self.feed_forward_width + self.width
        norms = 4 * self.width
        return self.layers * (attention + feed_forward + norms) + 2 * self.width + self.embedding_parameters()

    def flops_per_token(self, context: int) -> int:
        """FLOPs of a forward pass over `context` tokens, per token; a training step takes three times as many.

        A multiply-accumulate is two FLOPs. Counted are all matrix products, the head among them; scores and mixed
        values with the full (context x context) matrix, as torch's FlopCounterMode has it, though the causal
        kernel skips nearly half of it. Not counted: norms, softmax, ReLU, rotation, the embedding's look-up.
        """
        projections = 4 * self.width**2 + 2 * self.width * self.feed_forward_width
        scores_and_values = 2 * context * self.width
        return 2 * (self.layers * (projections + scores_and_values) + self.vocabulary_size * self.width)
