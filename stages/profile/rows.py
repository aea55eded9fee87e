"""Rows that several analyses make of their sketches.

- `estimate_measure`: an estimate with its interval
- `top_measures`: the most frequent types by name
"""

from collections.abc import Iterator, Mapping

import numpy as np

from stages.profile.analysis import Measure
from stages.profile.sketches import type_counts
from stages.profile.sketches.type_counts import Counts, Estimate, Floats


def estimate_measure(name: str, estimate: Estimate, unit: str) -> Measure:
    """An estimate with its interval."""
    return Measure(name, estimate.value, unit, None, estimate.low, estimate.high, estimate.is_exact)


def top_measures(
    name: str, unit: str, counts: type_counts.State, texts: Mapping[str, str], number: int, least: int = 1
) -> Iterator[Measure]:
    """The most frequent types whose text is known, with at least `least` tokens, the largest first."""
    columns = (column.tolist() for column in type_counts.most_frequent(counts, number))
    for hashed, count, error in zip(*columns, strict=True):
        text = texts.get(str(hashed))
        if text is not None and count >= least:
            yield Measure(name, count, unit, text, count, count + error, not error)


def distinct(counts: type_counts.State) -> Estimate:
    """Number of types."""
    return type_counts.type_sum(counts, _one)


def _one(counts: Counts) -> Floats:
    return np.ones(len(counts))
