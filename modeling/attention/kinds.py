"""The kinds of attention, chosen per layer, and what each lets a query see. Imports no torch.

- `FullAttention`: every token so far
- `WindowAttention`: the newest tokens
- `PooledAttention`: the newest tokens exactly, all before them through pooled keys and values
"""

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FullAttention(_Part):
    """A query sees itself and every token before it (Vaswani et al. 2017, 1706.03762, 3.2.3)."""

    kind: Literal["full"] = "full"

    def borders(self, position: Any) -> list[Any]:
        """Where each level ends; here the exact tokens go back to 0."""
        return [position * 0]


class WindowAttention(_Part):
    """A query sees itself and the tokens just before it (Longformer, Beltagy et al. 2020, 2004.05150, 3.1)."""

    kind: Literal["window"] = "window"
    window: int = Field(256, gt=0, description="tokens a query sees, itself among them")

    def borders(self, position: Any) -> list[Any]:
        """Where each level ends: exact tokens from position - window + 1 on, nothing before them."""
        return [_at_least_zero(position - self.window + 1)]


class PoolLevel(_Part):
    """Keys and values pooled over blocks of `stride` tokens."""

    stride: int = Field(64, gt=1, description="tokens per pooled key and value")
    entries: int | None = Field(
        None,
        gt=0,
        description="pooled keys of this level that a query sees before the next, coarser level takes over; "
        "left out for the last level, which sees all that is left",
    )


class PooledAttention(_Part):
    """A query sees a window of tokens exactly and everything before it pooled.

    The window reaches back to the border of a block: it holds `window` to `window + stride - 1` tokens, the blocks
    before it are complete, and no token is left out or seen twice. A pooled key weighs as much as the tokens it stands
    for (the logarithm of the stride is added to its score, as in Token Merging, Bolya et al. 2022, 2210.09461, 3), so
    where the keys and values of each block are equal this is full attention.
    """

    kind: Literal["pooled"] = "pooled"
    window: int = Field(256, gt=0, description="newest tokens that a query sees exactly, itself among them")
    levels: tuple[PoolLevel, ...] = Field(
        (PoolLevel(stride=64),), min_length=1, description="finest first; each stride a multiple of the one before"
    )
    pooling: Literal["mean", "learnt"] = Field(
        "mean",
        description="mean over the block, or weights by content and place in the block, which start as the mean",
    )
    strided: bool = Field(
        False,
        description="see also the single tokens 2, 3, 4 ... windows back "
        "(the strided pattern of Sparse Transformers, Child et al. 2019, 1904.10509, 4.2)",
    )

    @model_validator(mode="after")
    def _levels_fit(self) -> "PooledAttention":
        strides = [level.stride for level in self.levels]
        for finer, coarser in pairwise(strides):
            if coarser <= finer or coarser % finer:
                raise ValueError(
                    f"levels have the strides {', '.join(map(str, strides))}; each must be a larger multiple of the "
                    f"one before: after {finer} come {2 * finer}, {3 * finer}, {4 * finer} ..."
                )
        if strides[0] > self.window:
            raise ValueError(
                f"the first stride is {strides[0]} and the window {self.window}; that stride can be 2 to the window"
            )
        bounded = [level.entries is not None for level in self.levels]
        if bounded != [True] * (len(bounded) - 1) + [False]:
            raise ValueError(
                "every level but the last needs `entries`, after which the next one takes over, and the last must have "
                f"none, so that it reaches the beginning; entries are {[level.entries for level in self.levels]}"
            )
        return self

    def borders(self, position: Any) -> list[Any]:
        """Where each level ends, newest first: [first exact token, first token of level 1, ... 0].

        Level i's blocks lie in [borders[i], borders[i - 1]); each border is a multiple of both sides' strides. Takes
        an integer or an integer array.
        """
        start = _round_down(_at_least_zero(position - self.window + 1), self.levels[0].stride)
        borders = [start]
        for level, coarser in pairwise(self.levels):
            assert level.entries is not None
            start = _round_down(_at_least_zero(start - level.entries * level.stride), coarser.stride)
            borders.append(start)
        return [*borders, position * 0]

    def strided_sees(self, position: Any, token: Any) -> Any:
        """Whether a query sees a token by the strided pattern; of integers or integer arrays."""
        distance = position - token
        return (distance >= 2 * self.window) & (distance % self.window == 0)


AttentionKind = Annotated[FullAttention | WindowAttention | PooledAttention, Field(discriminator="kind")]


def pool_levels(kind: AttentionKind) -> tuple[PoolLevel, ...]:
    """The pooled levels of a kind; none but `PooledAttention` has any."""
    return kind.levels if isinstance(kind, PooledAttention) else ()


def _at_least_zero(number: Any) -> Any:
    """Of an integer or an integer array of any library."""
    return number * (number > 0)


def _round_down(number: Any, unit: int) -> Any:
    return number // unit * unit
