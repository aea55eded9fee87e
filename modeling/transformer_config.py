"""The network's config. Imports no torch.

- `TransformerShape`: set by the run config; `EmbeddingBand`: embeddings that are narrower than the network
- `TransformerConfig`: the shape with the vocabulary, which depends on the tokenizer

`modeling.evaluation.config_counts` counts parameters and operations of a config.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from modeling.attention.kinds import AttentionKind, FullAttention, pool_levels
from modeling.experts.config import ExpertsConfig


class EmbeddingBand(BaseModel):
    """Consecutive token ids whose vectors have the same width; a matrix projects them to the network's width and back.

    One band for all tokens is a factorized embedding (ALBERT, Lan et al. 2019, 1909.11942, 3.1); several, narrower from
    band to band, are an adaptive one (Baevski and Auli 2018, 1809.10853): token ids of a BPE vocabulary are roughly in
    order of falling frequency.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: int | None = Field(
        None, gt=0, description="token ids in this band; none for the last, which has all remaining"
    )
    width: int = Field(gt=0, description="numbers per token id")


def _four_times_width(fields: dict[str, Any]) -> int:
    return 4 * int(fields["width"])


def _listed(kinds: Any) -> Any:
    """A single kind for all layers may be given without a list."""
    return kinds if isinstance(kinds, list | tuple) else (kinds,)


class TransformerShape(BaseModel):
    """Shape of a pre-norm decoder with rotary positions and a ReLU feed-forward."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    layers: int = Field(default=6, gt=0, description="decoder layers, each attention and feed-forward")
    width: int = Field(default=256, gt=0, description="numbers per token in the residual stream (d_model)")
    heads: int = Field(default=4, gt=0, description="attention heads of width / heads numbers each, an even count")
    feed_forward_width: int = Field(
        default_factory=_four_times_width,
        gt=1,
        description="neurons of the feed-forward; 4 x width by default (Vaswani et al. 2017, 1706.03762, 3.3)",
    )
    context_length: int = Field(
        default=256, gt=0, description="tokens of a training row, the longest context of a prediction in training"
    )
    attention: Annotated[tuple[AttentionKind, ...], BeforeValidator(_listed)] = Field(
        default=(FullAttention(),),
        description="full, window or pooled; or a list of kinds, repeated over the layers",
    )
    separate_documents: bool = Field(
        default=False, description="attention does not cross document borders in training rows of several documents"
    )
    experts: ExpertsConfig | None = Field(default=None, description="mixture of experts in place of feed-forwards")
    rotary_base: float = Field(
        default=10_000, gt=1, description="base of the rotary wavelengths (RoFormer, 2104.09864, 3.2.2)"
    )
    tied_embeddings: bool = Field(
        default=True, description="the head uses the embedding's table (Press and Wolf 2017, 1608.05859)"
    )
    embedding_bands: tuple[EmbeddingBand, ...] = Field(
        default=(),
        description="widths of the embedding by token id, for large vocabularies; if empty, `width` for all",
    )
    norm_epsilon: float = Field(default=1e-5, gt=0, description="added to the variance in LayerNorm (GPT-NeoX)")
    initializer_std: float = Field(
        default=0.02, gt=0, description="standard deviation of initial weights (GPT-2); less for residual outputs"
    )
    base_width: int | None = Field(
        default=None,
        gt=0,
        description="width at which learning rate and initialization were tuned, to transfer them to `width` "
        "(muP, Yang et al. 2022, 2203.03466); standard parametrization by default",
    )
    base_layers: int | None = Field(
        default=None,
        gt=0,
        description="layers at which they were tuned, to transfer them to `layers` (CompleteP, 2505.01618)",
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> "TransformerShape":
        if self.width % 2:
            raise ValueError(
                f"width is {self.width}; it must be even, because rotary positions rotate pairs of numbers: "
                f"use {self.width - 1 or 2} or {self.width + 1}"
            )
        if self.width % (2 * self.heads):
            fitting = [heads for heads in range(1, self.width // 2 + 1) if self.width % (2 * heads) == 0]
            raise ValueError(
                f"heads is {self.heads}, which does not divide width {self.width} into even head widths "
                f"(rotary positions rotate pairs of numbers); heads can be {', '.join(map(str, fitting))}"
            )
        return self

    @model_validator(mode="after")
    def _attention_fits(self) -> "TransformerShape":
        if not self.attention or self.layers % len(self.attention):
            raise ValueError(
                f"attention lists {len(self.attention)} kinds, whose number must divide the {self.layers} layers; "
                f"list {', '.join(map(str, _divisors(self.layers)))} kinds"
            )
        for kind in self.attention:
            for level in pool_levels(kind):
                if level.stride > self.context_length:
                    raise ValueError(
                        f"a level of pooled attention has stride {level.stride}, but context_length is "
                        f"{self.context_length}; the stride can be 2 to {self.context_length}"
                    )
        return self

    @model_validator(mode="after")
    def _experts_fit(self) -> "TransformerShape":
        if self.experts is not None and self.experts.every > self.layers:
            raise ValueError(
                f"experts.every is {self.experts.every}, with which none of the {self.layers} layers has experts; "
                f"it can be 1 to {self.layers}"
            )
        return self

    @model_validator(mode="after")
    def _bands_fit(self) -> "TransformerShape":
        open_ended = [band.entries is None for band in self.embedding_bands]
        if open_ended and open_ended != [False] * (len(open_ended) - 1) + [True]:
            raise ValueError(
                "every embedding band but the last needs `entries`, and the last must have none: it has all remaining "
                f"tokens; entries are {[band.entries for band in self.embedding_bands]}"
            )
        return self

    @property
    def head_width(self) -> int:
        """Numbers per token and head."""
        return self.width // self.heads

    def layer_attention(self, layer: int) -> AttentionKind:
        """Attention of a layer, counted from 0."""
        return self.attention[layer % len(self.attention)]

    def layer_experts(self, layer: int) -> ExpertsConfig | None:
        """Experts of a layer, counted from 0; None if it has one feed-forward."""
        if self.experts is None or (layer + 1) % self.experts.every:
            return None
        return self.experts


class TransformerConfig(TransformerShape):
    """Everything that determines the network's tensors."""

    vocabulary_size: int = Field(gt=1, description="entries of the tokenizer's vocabulary")
    end_of_text: int = Field(default=0, ge=0, description="id of the token before every document")

    @model_validator(mode="after")
    def _vocabulary_fits(self) -> "TransformerConfig":
        banded = sum(band.entries or 0 for band in self.embedding_bands)
        if banded >= self.vocabulary_size:
            raise ValueError(
                f"the embedding bands before the last hold {banded} entries, but the vocabulary has "
                f"{self.vocabulary_size}; they can hold 1 to {self.vocabulary_size - 1} together"
            )
        if self.end_of_text >= self.vocabulary_size:
            raise ValueError(
                f"end_of_text is {self.end_of_text}; with {self.vocabulary_size} tokens it can be 0 to "
                f"{self.vocabulary_size - 1}"
            )
        return self

    @property
    def bands(self) -> tuple[tuple[int, int], ...]:
        """(entries, width) of each embedding band, summing to the vocabulary; one of the full width if unset."""
        bands = [(band.entries or 0, band.width) for band in self.embedding_bands] or [(0, self.width)]
        before_last = sum(entries for entries, _ in bands)
        return (*bands[:-1], (self.vocabulary_size - before_last, bands[-1][1]))


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
