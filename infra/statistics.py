"""How sure a score is: percentile bootstrap over documents or test items (Efron & Tibshirani 1993, ch. 13).

- `bootstrap_interval`: of a ratio of sums: bits per byte over documents, accuracy over items
- `paired_difference`: of the difference of two models on the same documents or items
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BLOCK = 4_000_000
"""Random draws held at once."""


class Interval(NamedTuple):
    """A score and its bootstrap interval, in the score's unit."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    values: npt.ArrayLike, weights: npt.ArrayLike, seed: int, resamples: int = 1000, confidence: float = 0.95
) -> Interval:
    """sum(values) / sum(weights) with a percentile interval over resampled items.

    Args:
        values: numerators (items,), such as a document's bits, or 1 for a right answer.
        weights: denominators (items,), such as a document's bytes, or 1; above 0.
        seed: of the resampling.
        resamples: bootstrap samples, each of as many items as there are.
        confidence: mass inside the interval.
    """
    numerators = np.asarray(values, dtype=np.float64)
    denominators = np.asarray(weights, dtype=np.float64)
    assert numerators.shape == denominators.shape and (denominators > 0).all(), denominators
    generator = np.random.default_rng(seed)
    ratios: list[Floats] = []
    block = max(1, BLOCK // numerators.size)
    for first in range(0, resamples, block):
        draws = generator.integers(numerators.size, size=(min(block, resamples - first), numerators.size))
        ratios.append(numerators[draws].sum(1) / denominators[draws].sum(1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(ratios), [tail, 1 - tail])
    return Interval(float(numerators.sum() / denominators.sum()), float(low), float(high))


def paired_difference(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    weights: npt.ArrayLike,
    seed: int,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """The score of `first` minus that of `second`, both over the same items, which are resampled together.

    An interval without 0 says that the two differ. Arguments as in `bootstrap_interval`.
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return bootstrap_interval(difference, weights, seed, resamples, confidence)
