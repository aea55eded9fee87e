"""Distribution of whole numbers: exact up to a number of distinct values, in narrow buckets from there on.

- `empty`, `add`, `merge`: the state and its changes
- `total`, `mean`, `quantile`, `octaves`: what is read from it

Buckets are those of HdrHistogram: numbers below `2 ** PRECISION_BITS` have one of their own, larger ones share their
first `PRECISION_BITS` bits, so that a quantile is off by less than 1 in `2 ** (PRECISION_BITS - 1)`. Whether a state is
in buckets follows from the numbers alone, so that merges in any order give the same state.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
State = dict[str, Any]

PRECISION_BITS = 8
EXACT_VALUES = 4_096


class Quantile(NamedTuple):
    """A quantile with the bounds of its bucket; they are equal while the state is exact."""

    value: float
    low: float
    high: float


def empty() -> State:
    """No numbers."""
    return {"values": np.empty(0, np.int64), "counts": np.empty(0, np.int64), "sum": 0, "coarse": False}


def add(state: State, numbers: npt.ArrayLike) -> State:
    """State with more numbers, none of them negative."""
    array = np.asarray(numbers, dtype=np.int64)
    assert not len(array) or array.min() >= 0, array
    values, counts = np.unique(array, return_counts=True)
    more = {"values": values, "counts": counts.astype(np.int64), "sum": int(array.sum()), "coarse": False}
    return merge(state, more)


def merge(first: State, second: State) -> State:
    """State of the numbers of both."""
    values = np.concatenate([first["values"], second["values"]])
    counts = np.concatenate([first["counts"], second["counts"]])
    coarse = first["coarse"] or second["coarse"]
    values, counts = _summed(_bucket(values) if coarse else values, counts)
    if len(values) > EXACT_VALUES and not coarse:
        coarse = True
        values, counts = _summed(_bucket(values), counts)
    return {"values": values, "counts": counts, "sum": first["sum"] + second["sum"], "coarse": coarse}


def total(state: State) -> int:
    """Number of the numbers."""
    return int(state["counts"].sum())


def mean(state: State) -> float:
    """Mean, always exact; NaN without numbers."""
    return state["sum"] / total(state) if total(state) else float("nan")


def quantile(state: State, share: float) -> Quantile:
    """The smallest number that at least this share of the numbers does not exceed; the middle of its bucket."""
    assert len(state["values"]), "no numbers"
    reached = np.cumsum(state["counts"])
    low = int(state["values"][np.searchsorted(reached, share * reached[-1])])
    high = low + _width(low) - 1 if state["coarse"] else low
    return Quantile((low + high) / 2, low, high)


def octaves(state: State) -> dict[str, int]:
    """Numbers between powers of two, always exact: `0`, `1`, `2-3`, `4-7` ... -> how many; the empty ones between
    others are listed too."""
    if not len(state["values"]):
        return {}
    exponents = np.frexp(state["values"].astype(np.float64))[1]
    counts = np.bincount(exponents, weights=state["counts"])
    first = int(exponents.min())
    return {_octave(exponent): int(counts[exponent]) for exponent in range(first, len(counts))}


def _octave(exponent: int) -> str:
    low, high = (0, 0) if exponent == 0 else (2 ** (exponent - 1), 2**exponent - 1)
    return str(low) if low == high else f"{low}-{high}"


def _width(low: int) -> int:
    return int(2 ** max(0, low.bit_length() - PRECISION_BITS))


def _bucket(values: Integers) -> Integers:
    """Lower bound of each number's bucket."""
    shifts = np.maximum(0, np.frexp(values.astype(np.float64))[1] - PRECISION_BITS).astype(np.int64)
    lows: Integers = (values >> shifts) << shifts
    return lows


def _summed(values: Integers, counts: Integers) -> tuple[Integers, Integers]:
    distinct, inverse = np.unique(values, return_inverse=True)
    sums = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(sums, inverse, counts)
    return distinct, sums
