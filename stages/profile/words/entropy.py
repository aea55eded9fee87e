"""Entropy of a text from counts of its types (distinct words, or n-grams), in bits.

- `plug_in`, `miller_madow`, `grassberger`, `chao_shen`: estimates of the entropy of one token
- `ESTIMATORS`: all of them by name
- `of_bytes`: entropy of one byte, from its 256 counts

A plug-in entropy is too low for any text that lacks some of its language's words, by about
(types - 1) / (2 tokens ln 2) bits to first order. The others correct this in three ways; if they differ much, the text
is too short for any of them.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from stages.profile.sketches.type_counts import Counts, Estimate, Floats, State, token_mean, type_sum

LN2 = math.log(2)


def plug_in(state: State) -> Estimate:
    """Maximum likelihood: the mean over tokens of log2(tokens / count)."""
    tokens = state["tokens"]
    return token_mean(state, lambda counts: np.log2(tokens / counts))


def miller_madow(state: State) -> Estimate:
    """Plug-in plus (types - 1) / (2 tokens ln 2) (Miller 1955)."""
    if not state["tokens"]:
        return plug_in(state)
    entropy, types, scale = plug_in(state), type_sum(state, _one), 2 * state["tokens"] * LN2
    return Estimate(
        entropy.value + (types.value - 1) / scale,
        entropy.low + (types.low - 1) / scale,
        entropy.high + (types.high - 1) / scale,
    )


def grassberger(state: State) -> Estimate:
    """ln(tokens) minus the mean over tokens of G(count), in bits (Grassberger 2003, physics/0307138)."""
    tokens = state["tokens"]
    return token_mean(state, lambda counts: (math.log(tokens) - _g(counts)) / LN2)


def _g(counts: Counts) -> Floats:
    """G(n) = psi(n) + (-1)^n / 2 (psi((n + 1) / 2) - psi(n / 2)): unbiased but for a term that falls exponentially."""
    from scipy.special import digamma

    n = counts.astype(np.float64)
    g: Floats = digamma(n) + np.where(counts % 2, -0.5, 0.5) * (digamma((n + 1) / 2) - digamma(n / 2))
    return g


def chao_shen(state: State) -> Estimate:
    """Horvitz-Thompson sum over the probabilities that Good-Turing coverage leaves (Chao & Shen 2003)."""
    tokens = state["tokens"]
    if not tokens:
        return plug_in(state)
    single = min(type_sum(state, lambda counts: (counts == 1).astype(np.float64)).value, tokens - 1)
    coverage = 1 - single / tokens

    def bits(counts: Counts) -> Floats:
        share = coverage * counts / tokens
        seen = -np.expm1(tokens * np.log1p(-np.minimum(share, 1 - 1e-16)))
        terms: Floats = -share * np.log2(share) / seen / counts * tokens
        return terms

    return token_mean(state, bits) if coverage > 0 else plug_in(state)


ESTIMATORS: dict[str, Callable[[State], Estimate]] = {
    "plug_in": plug_in,
    "miller_madow": miller_madow,
    "grassberger": grassberger,
    "chao_shen": chao_shen,
}


def of_bytes(counts: npt.NDArray[np.int64]) -> float:
    """Plug-in entropy in bits per byte; NaN without bytes.

    Args:
        counts: (256,) int64.
    """
    total = int(counts.sum())
    some = counts[counts > 0]
    return float((some * np.log2(total / some)).sum() / total) if total else float("nan")


def _one(counts: Counts) -> Floats:
    return np.ones(len(counts))
