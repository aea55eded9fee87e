"""The kinds of attention, chosen per layer, and the tokens that a query sees in each. Imports no torch.

- `FullAttention`: every token so far
- `WindowAttention`: the newest tokens
- `PooledAttention`: the newest tokens exactly, all before them through pooled keys and values
"""

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FullAttention(_Config):
    """A query sees itself and every token before it (Vaswani et al. 2017, 1706.03762, 3.2.3)."""

    kind: Literal["full"] = "full"

    def borders(self, position: Any) -> list[Any]:
        """First token of each level; the exact tokens start at 0."""
        return [position * 0]


class WindowAttention(_Config):
    """A query sees itself and the tokens just before it (Longformer, Beltagy et al. 2020, 2004.05150, 3.1)."""

    kind: Literal["window"] = "window"
    window: int = Field(256, gt=0, description="tokens that a query sees, including itself")

    def borders(self, position: Any) -> list[Any]:
        """First token of each level: exact tokens start at position - window + 1, with nothing before them."""
        return [_at_least_zero(position - self.window + 1)]


class PoolLevel(_Config):
    """Keys and values pooled over blocks of `stride` tokens."""

    stride: int = Field(64, gt=1, description="tokens per pooled key and value")
    entries: int | None = Field(
        None,
        gt=0,
        description="pooled keys of this level that a query sees before the next, coarser level starts; "
        "not set for the last level, which reaches back to the first token",
    )


class PooledAttention(_Config):
    """A query sees a window of tokens exactly and everything before it pooled.

    The window reaches back to the border of a block: it holds `window` to `window + stride - 1` tokens, the blocks
    before it are complete, and every token is seen exactly once. A pooled key weighs as much as the tokens of its block
    (the logarithm of the stride is added to its score, as in Token Merging, Bolya et al. 2022, 2210.09461, 3), so that
    it is full attention if the keys and values of each block are equal.
    """

    kind: Literal["pooled"] = "pooled"
    window: int = Field(256, gt=0, description="newest tokens that a query sees exactly, including itself")
    levels: tuple[PoolLevel, ...] = Field(
        (PoolLevel(stride=64),), min_length=1, description="finest first; each stride a multiple of the one before"
    )
    pooling: Literal["mean", "learnt"] = Field(
        "mean",
        description="mean over the block, or learned weights by content and position in the block, initially the mean",
    )
    strided: bool = Field(
        False,
        description="also see the single tokens 2, 3, 4 ... windows back "
        "(the strided pattern of Sparse Transformers, Child et al. 2019, 1904.10509, 4.2)",
    )

    @model_validator(mode="after")
    def _levels_fit(self) -> "PooledAttention":
        strides = [level.stride for level in self.levels]
        for finer, coarser in pairwise(strides):
            if coarser <= finer or coarser % finer:
                raise ValueError(
                    f"levels have strides {', '.join(map(str, strides))}; each must be a larger multiple of the "
                    f"one before: after {finer} come {2 * finer}, {3 * finer}, {4 * finer} ..."
                )
        if strides[0] > self.window:
            raise ValueError(
                f"the first stride is {strides[0]} and the window {self.window}; that stride can be 2 to {self.window}"
            )
        bounded = [level.entries is not None for level in self.levels]
        if bounded != [True] * (len(bounded) - 1) + [False]:
            raise ValueError(
                "every level but the last needs `entries`, after which the next level starts, and the last must have "
                f"none, so that it reaches the first token; entries are {[level.entries for level in self.levels]}"
            )
        return self

    def borders(self, position: Any) -> list[Any]:
        """First token of each level, newest first: [first exact token, first token of level 1, ... 0].

        Level i's blocks lie in [borders[i], borders[i - 1]); each border is a multiple of both sides' strides.
        Takes an integer or an integer array.
        """
        start = _round_down(_at_least_zero(position - self.window + 1), self.levels[0].stride)
        borders = [start]
        for level, coarser in pairwise(self.levels):
            assert level.entries is not None
            start = _round_down(_at_least_zero(start - level.entries * level.stride), coarser.stride)
            borders.append(start)
        return [*borders, position * 0]

    def strided_sees(self, position: Any, token: Any) -> Any:
        """Whether a query sees a token by the strided pattern; for integers or integer arrays."""
        distance = position - token
        return (distance >= 2 * self.window) & (distance % self.window == 0)


AttentionKind = Annotated[FullAttention | WindowAttention | PooledAttention, Field(discriminator="kind")]


def pool_levels(kind: AttentionKind) -> tuple[PoolLevel, ...]:
    """Pooled levels of a kind; empty for all but `PooledAttention`."""
    return kind.levels if isinstance(kind, PooledAttention) else ()


def _at_least_zero(number: Any) -> Any:
    """max(number, 0), for an integer or an integer array of any library."""
    return number * (number > 0)


def _round_down(number: Any, unit: int) -> Any:
    return number // unit * unit
