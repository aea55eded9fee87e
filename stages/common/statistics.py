"""Confidence intervals of scores: percentile bootstrap over documents or test items (Efron & Tibshirani 1993, ch. 13).

- `bootstrap_interval`: ratio of sums: bits per byte over documents, accuracy over items
- `wilson_interval`: proportion; valid even if all items are alike
- `bootstrap_draws`, `percentile_interval`: any statistic of the items, such as a correlation
- `paired_difference`: difference between two models on the same documents or items
- `student_interval`: mean of a few numbers, such as one score per episode
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BLOCK = 4_000_000
"""Random draws in memory at a time."""


class Interval(NamedTuple):
    """A score and its bootstrap interval, in the score's unit."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    values: npt.ArrayLike, weights: npt.ArrayLike, seed: int, resamples: int = 1000, confidence: float = 0.95
) -> Interval:
    """sum(values) / sum(weights) with a percentile interval over resampled items.

    If all items are correct, or all are wrong, every resample is the same and the bootstrap interval would be empty:
    Wilson's interval is used instead.

    Args:
        values: numerators (items,), such as a document's bits, or 1 for a correct answer.
        weights: denominators (items,), such as a document's bytes, or 1; above 0.
        seed: seed of the resampling.
        resamples: number of bootstrap samples, each of the size of the data.
        confidence: coverage of the interval.
    """
    numerators = np.asarray(values, dtype=np.float64)
    denominators = np.asarray(weights, dtype=np.float64)
    assert numerators.shape == denominators.shape and (denominators > 0).all(), denominators
    if (denominators == 1).all() and (numerators == numerators[0]).all() and numerators[0] in (0, 1):
        return wilson_interval(int(numerators.sum()), numerators.size, confidence)
    return _resampled(numerators, denominators, seed, resamples, confidence)


def _resampled(numerators: Floats, denominators: Floats, seed: int, resamples: int, confidence: float) -> Interval:
    generator = np.random.default_rng(seed)
    ratios: list[Floats] = []
    block = max(1, BLOCK // numerators.size)
    for first in range(0, resamples, block):
        draws = generator.integers(numerators.size, size=(min(block, resamples - first), numerators.size))
        ratios.append(numerators[draws].sum(1) / denominators[draws].sum(1))
    return percentile_interval(float(numerators.sum() / denominators.sum()), np.concatenate(ratios), confidence)


def wilson_interval(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Proportion with its score interval (Wilson 1927, JASA 22): 0 of 40 is 0 to 0.088, not 0 to 0."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = successes / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / trials + spread / trials / 4) / (1 + spread)
    # Exact at the ends, where rounding would leave 7e-18.
    return Interval(share, middle - half if successes else 0.0, middle + half if successes < trials else 1.0)


def bootstrap_draws(
    statistic: Callable[..., float], columns: Sequence[npt.ArrayLike], seed: int, resamples: int = 1000
) -> Floats:
    """Statistic of each bootstrap sample, float64 (resamples,).

    Args:
        statistic: function of one array (items,) per column, to a finite number.
        columns: such as labels and predictions; resampled together, item by item.
        seed: seed of the resampling; two statistics of the same items with the same seed see the same samples.
        resamples: number of bootstrap samples, each of the size of the data.
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in columns]
    items = len(arrays[0])
    generator = np.random.default_rng(seed)
    draws = (generator.integers(items, size=items) for _ in range(resamples))
    return np.array([statistic(*(values[draw] for values in arrays)) for draw in draws])


def percentile_interval(value: float, draws: Floats, confidence: float = 0.95) -> Interval:
    """Score with the interval that holds the central `confidence` of its bootstrap draws."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def paired_difference(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    weights: npt.ArrayLike,
    seed: int,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Score of `first` minus score of `second` over the same items, which are resampled together.

    The two differ significantly if the interval excludes 0. Arguments as in `bootstrap_interval`.
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return _resampled(difference, np.asarray(weights, dtype=np.float64), seed, resamples, confidence)


def student_interval(values: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean with Student's t interval, for few, about normal numbers; NaN bounds for a single number."""
    from scipy.stats import t

    numbers = np.asarray(values, dtype=np.float64)
    mean, count = float(numbers.mean()), numbers.size
    if count < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(t.ppf((1 + confidence) / 2, count - 1) * numbers.std(ddof=1)) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)
