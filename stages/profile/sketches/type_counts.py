"""Counts of types (distinct words, n-grams, lines ...) by their hashes: exact up to a capacity, a sketch from there on.

- `of`, `merge`: the state and its changes
- `token_mean`, `type_sum`: sums over all types, with the error that sampling leaves
- `most_frequent`: the types with the largest counts; `first_tokens`, `still_frequent`: for keeping their texts

Beyond the capacity a state holds two sets of types. The *sample* is every type whose hash is below 2 ** (64 - level),
with its exact count: a uniform sample of the types, from which any sum over types can be estimated (adaptive sampling:
Wegman; Flajolet 1990, "On adaptive sampling"). The level follows from the hashes alone, so that the sample is the same
in whatever order parts are merged. The *frequent types* are kept as in Space-Saving (Metwally et al. 2005; merged as in
Agarwal et al. 2012, "Mergeable summaries"): a count is at most `errors` too low, and a type that is absent occurred at
most `bound` times. Sums take the frequent types one by one and the others from the sample, since a sum over tokens
would have no use of a sample that may or may not contain the word *the*.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stages.common.compiled import compiled
from stages.common.word_hashes import Hashes

State = dict[str, Any]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CAPACITY = 1 << 20
"""Types per state: 24 MB."""
CERTAIN = 4
"""Types that occur more than `CERTAIN * bound` times count one by one. With 2, entropy comes out 0.013 bits too high,
as types whose counts are too low are missed; with 8 the interval is 1.6 times as wide."""
STANDARD_ERRORS = 1.96
SEARCHED_TOKENS = 200_000
"""Tokens of a batch that are searched for the first one of a frequent type."""


class Estimate(NamedTuple):
    """A sum with its 95 % interval; the bounds are equal if it is exact."""

    value: float
    low: float
    high: float

    @property
    def is_exact(self) -> bool:
        """True if nothing was sampled."""
        return self.low == self.high


def of(hashes: Hashes, capacity: int = CAPACITY) -> State:
    """State of some tokens, from the hash of each; hashes must be uniform over 64 bits."""
    ordered = np.sort(hashes)
    firsts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
    counts = np.diff(np.r_[firsts, len(ordered)]).astype(np.int64)
    state = {
        "hashes": ordered[firsts], "counts": counts, "errors": np.zeros(len(firsts), np.int64),
        "tokens": len(hashes), "level": 0, "bound": 0, "sampled": False,
    }  # fmt: skip
    return _pruned(state, capacity)


def merge(first: State, second: State, capacity: int = CAPACITY) -> State:
    """State of the tokens of both."""
    if not first["tokens"] or not second["tokens"]:
        return second if not first["tokens"] else first
    size = len(first["hashes"]) + len(second["hashes"])
    columns = np.empty(size, np.uint64), np.empty(size, np.int64), np.empty(size, np.int64)
    types = _merge(*_sides(first), *_sides(second), *columns)
    hashes, counts, errors = (column[:types].copy() for column in columns)
    state = {
        "hashes": hashes,
        "counts": counts,
        "errors": errors,
        "tokens": first["tokens"] + second["tokens"],
        "level": max(first["level"], second["level"]),
        "bound": first["bound"] + second["bound"],
        "sampled": first["sampled"] or second["sampled"],
    }
    return _pruned(state, capacity)


def _sides(state: State) -> tuple[Hashes, Counts, Counts, np.uint64, np.int64]:
    """A state as arguments of `_merge`: its types, the first hash that its sample lacks, and the bound of those."""
    level = state["level"]
    beyond = np.uint64(1 << (64 - level)) if level else np.uint64(2**64 - 1)
    return state["hashes"], state["counts"], state["errors"], beyond, np.int64(state["bound"])


@compiled
def _merge(
    first: Hashes,
    first_counts: Counts,
    first_errors: Counts,
    first_beyond: np.uint64,
    first_bound: np.int64,
    second: Hashes,
    second_counts: Counts,
    second_errors: Counts,
    second_beyond: np.uint64,
    second_bound: np.int64,
    hashes: Hashes,
    counts: Counts,
    errors: Counts,
) -> int:
    """Fill in the sorted union of two sorted sets of types with the sums of their counts; returns its size.

    A type that one of the two lacks may have occurred there up to its bound, unless its sample would hold it.
    """
    count, left, right = 0, 0, 0
    while left < len(first) or right < len(second):
        is_left = right == len(second) or (left < len(first) and first[left] <= second[right])
        is_right = left == len(first) or (right < len(second) and second[right] <= first[left])
        hashed = first[left] if is_left else second[right]
        hashes[count], counts[count], errors[count] = hashed, 0, 0
        if is_left:
            counts[count] += first_counts[left]
            errors[count] += first_errors[left]
            left += 1
        elif hashed >= first_beyond:
            errors[count] += first_bound
        if is_right:
            counts[count] += second_counts[right]
            errors[count] += second_errors[right]
            right += 1
        elif hashed >= second_beyond:
            errors[count] += second_bound
        count += 1
    return count


def sample_size(hashes: Hashes, level: int) -> int:
    """Number of the sorted hashes that are in the sample of a level."""
    return int(np.searchsorted(hashes, np.uint64(1 << (64 - level)))) if level else len(hashes)


def _pruned(state: State, capacity: int) -> State:
    """State with half of the capacity for the sample and half for frequent types, if all types do not fit."""
    hashes, counts, errors = state["hashes"], state["counts"], state["errors"]
    if not state["sampled"] and len(hashes) <= capacity:
        return state
    level = state["level"]
    while sample_size(hashes, level) > capacity // 2:
        level += 1
    sample = sample_size(hashes, level)
    keep, bound = np.ones(len(hashes), dtype=np.bool_), state["bound"]
    errors = errors.copy()
    errors[:sample] = 0
    if len(hashes) - sample > capacity // 2:
        upper, kept = counts[sample:] + errors[sample:], capacity // 2
        least = np.partition(upper, len(upper) - kept)[len(upper) - kept]
        keep[sample:] = upper > least
        equal = np.flatnonzero(upper == least)
        keep[sample + equal[: kept - int(keep[sample:].sum())]] = True
        bound = max(bound, int(upper[~keep[sample:]].max()))
    pruned = {"hashes": hashes[keep], "counts": counts[keep], "errors": errors[keep]}
    return {**state, **pruned, "level": level, "bound": bound, "sampled": True}


def _head(state: State) -> npt.NDArray[np.bool_]:
    """Mask of the stored types that count one by one; all of them if nothing was sampled."""
    if not state["sampled"]:
        return np.ones(len(state["counts"]), dtype=np.bool_)
    mask: npt.NDArray[np.bool_] = state["counts"] > CERTAIN * state["bound"]
    return mask


def _tail(state: State) -> Counts:
    """Counts of the sampled types that are not in the head."""
    sample = sample_size(state["hashes"], state["level"])
    tail: Counts = state["counts"][:sample][~_head(state)[:sample]]
    return tail


def token_mean(state: State, function: Callable[[Counts], Floats]) -> Estimate:
    """Mean over all tokens of a function of the count of the token's type; NaN without tokens.

    The tokens of the tail are known exactly, as all tokens without those of the head; their mean is estimated as the
    ratio of two sums over the sample, with the variance of that ratio.
    """
    if not state["tokens"]:
        return Estimate(*[float("nan")] * 3)
    counts, types = np.unique(state["counts"][_head(state)], return_counts=True)
    tokens, total = int((types * counts).sum()), float((types * counts * function(counts)).sum())
    if not state["sampled"]:
        return Estimate(*[total / state["tokens"]] * 3)
    (tail, tail_types), rest = np.unique(_tail(state), return_counts=True), state["tokens"] - tokens
    if not len(tail):
        return Estimate(*[total / max(1, tokens)] * 3)
    values, tail_tokens = function(tail), float((tail_types * tail).sum())
    mean = float((tail_types * tail * values).sum() / tail_tokens)
    squares = float((tail_types * (tail * (values - mean)) ** 2).sum())
    variance = (1 - 0.5 ** state["level"]) * squares / tail_tokens**2
    missed = int(state["errors"][_head(state)].sum()) * abs(mean - (total / tokens if tokens else 0))
    error = (STANDARD_ERRORS * variance**0.5 * rest + missed) / state["tokens"]
    value = (total + rest * mean) / state["tokens"]
    return Estimate(value, value - error, value + error)


def type_sum(state: State, function: Callable[[Counts], Floats]) -> Estimate:
    """Sum over all types of a function of their counts; with `np.ones_like`, the number of distinct types."""
    counts, types = np.unique(state["counts"][_head(state)], return_counts=True)
    total = float((types * function(counts)).sum())
    if not state["sampled"]:
        return Estimate(total, total, total)
    tail, tail_types = np.unique(_tail(state), return_counts=True)
    values, scale = function(tail), 2.0 ** state["level"]
    error = STANDARD_ERRORS * (scale * (scale - 1) * float((tail_types * values**2).sum())) ** 0.5
    value = total + scale * float((tail_types * values).sum())
    return Estimate(value, value - error, value + error)


def most_frequent(state: State, number: int) -> tuple[Hashes, Counts, Counts]:
    """Hashes, counts and possible undercounts of the types with the largest counts, the largest first."""
    counts = state["counts"]
    if len(counts) > number:
        candidates = np.flatnonzero(counts >= np.partition(counts, len(counts) - number)[len(counts) - number])
    else:
        candidates = np.arange(len(counts))
    order = candidates[np.lexsort((state["hashes"][candidates], -counts[candidates]))][:number]
    return state["hashes"][order], counts[order], state["errors"][order]


def first_tokens(state: State, hashes: Hashes, number: int) -> dict[str, int]:
    """Hash of each of the most frequent types, in decimal -> its first token, searched among the first 200,000."""
    top = np.sort(most_frequent(state, number)[0])
    if not len(top):
        return {}
    searched = hashes[:SEARCHED_TOKENS]
    positions = np.minimum(np.searchsorted(top, searched), len(top) - 1)
    tokens = np.flatnonzero(top[positions] == searched)
    found, index = np.unique(searched[tokens], return_index=True)
    return {str(hashed): token for hashed, token in zip(found.tolist(), tokens[index].tolist(), strict=True)}


def still_frequent(state: State, texts: dict[str, str], number: int) -> dict[str, str]:
    """The texts, by the hash of their type; if they are more than twice `number`, those of the most frequent types."""
    if len(texts) <= 2 * number:
        return texts
    names = map(str, most_frequent(state, number)[0].tolist())
    return {name: texts[name] for name in names if name in texts}
