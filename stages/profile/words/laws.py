"""Zipf's and Heaps' laws, fitted to counts of words.

- `zipf`: exponent of the frequency by rank, by maximum likelihood
- `heaps`: growth of the vocabulary with the text
"""

from typing import NamedTuple

import numpy as np

from stages.profile.sketches.type_counts import STANDARD_ERRORS, Counts, Floats, State, most_frequent, type_sum

ZIPF_RANKS = 5_000
"""Ranks that the fit reads: words that most texts share; rarer ones follow a steeper law (Montemurro 2001)."""
HEAPS_SHARES = np.geomspace(0.01, 1, 20)
"""Shares of the text between which the growth of the vocabulary is fitted."""


class Zipf(NamedTuple):
    """Fit of p(rank) proportional to rank ** -exponent."""

    exponent: float
    low: float
    high: float
    """95 % interval, for words drawn independently; as they are not, the truth varies more."""
    ranks: int
    """The fit is over ranks 1 to this."""
    distance: float
    """Largest difference between the two cumulative distributions (Kolmogorov-Smirnov)."""
    exact: bool
    curve: list[tuple[int, int]]
    """(rank, occurrences) at ranks 1, 2, 5, 10 ...; to the rarest type if all were counted, else to the last rank of
    the fit."""


def zipf(state: State, ranks: int = ZIPF_RANKS) -> Zipf | None:
    """Maximum likelihood over the most frequent types; None if there are fewer than ten.

    The likelihood of a truncated power law has its maximum where the mean of ln(rank) is that of the data; the standard
    error is that of its Fisher information.
    """
    _, counts, errors = most_frequent(state, ranks)
    if len(counts) < 10:
        return None
    logs = np.log(np.arange(1, len(counts) + 1))
    tokens = int(counts.sum())
    mean = float((counts * logs).sum() / tokens)
    exponent = 1.0
    for _ in range(100):
        weights = np.exp(-exponent * logs)
        weights /= weights.sum()
        expected = float((weights * logs).sum())
        variance = float((weights * (logs - expected) ** 2).sum())
        step = float(np.clip((expected - mean) / variance, -0.5, 0.5))
        exponent += step
        if abs(step) < 1e-10:
            break
    error = STANDARD_ERRORS / np.sqrt(tokens * variance)
    distance = float(np.abs(np.cumsum(counts) / tokens - np.cumsum(weights)).max())
    ranked = counts if state["sampled"] else np.sort(state["counts"])[::-1]
    curve = [(rank, int(ranked[rank - 1])) for rank in _series(len(ranked))]
    return Zipf(exponent, exponent - error, exponent + error, len(counts), distance, not errors.any(), curve)


def _series(last: int) -> list[int]:
    """1, 2, 5, 10, 20 ... and the last rank."""
    ranks = [digit * 10**power for power in range(len(str(last))) for digit in (1, 2, 5)]
    return [*(rank for rank in ranks if rank < last), last]


class Heaps(NamedTuple):
    """Fit of vocabulary = scale * words ** exponent."""

    exponent: float
    scale: float
    words: tuple[int, int]
    """Words of the shortest and the longest text of the fit."""
    exact: bool
    curve: list[tuple[int, float]]
    """(words, vocabulary) of the points that are fitted."""


def heaps(state: State) -> Heaps | None:
    """Least squares between the logarithms of text and vocabulary; None for fewer than 1,000 words.

    The vocabulary of a part of the text is the expected one of a random part, which follows from the counts
    (rarefaction): it does not depend on the order of the documents.
    """
    tokens = state["tokens"]
    if tokens < 1_000:
        return None
    growth = [type_sum(state, lambda counts, share=share: _expected(counts, share)) for share in HEAPS_SHARES]  # type: ignore[misc]
    words = np.log(HEAPS_SHARES * tokens)
    exponent, intercept = np.polyfit(words, np.log([estimate.value for estimate in growth]), 1)
    limits = round(HEAPS_SHARES[0] * tokens), tokens
    curve = [(round(share * tokens), estimate.value) for share, estimate in zip(HEAPS_SHARES, growth, strict=True)]
    return Heaps(float(exponent), float(np.exp(intercept)), limits, growth[-1].is_exact, curve)


def _expected(counts: Counts, share: float) -> Floats:
    """Probability that a random share of the text contains each type."""
    missing: Floats = 1 - np.power(1 - share, counts)
    return missing
