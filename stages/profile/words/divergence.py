"""Difference between the words of two texts, beside the difference that chance alone would make."""

import numpy as np

from stages.profile.analysis import Measure
from stages.profile.sketches.type_counts import CERTAIN, Counts, Floats, State, sample_size

DRAWS = 8
"""Random divisions that the chance level is computed from."""


def divergence(training: State, held_out: State) -> list[Measure]:
    """Jensen-Shannon divergence in bits (0: equal, 1: no word in common) between two distributions of words.

    `divergence.words.chance` is the mean over random divisions of the same words into parts of the same size: two
    samples of one text differ by that much. Documents are about something, so that even a random choice of documents
    differs by more. In sketches, frequent words count one by one; the others are estimated from the sampled ones.
    """
    sizes = training["tokens"], held_out["tokens"]
    if not all(sizes):
        return []
    first, second, weights = _aligned(training, held_out)
    exact = not (training["sampled"] or held_out["sampled"])
    generator = np.random.default_rng(0)
    chances = []
    for _ in range(DRAWS):
        drawn = generator.binomial(first + second, sizes[0] / sum(sizes))
        chances.append(_jensen_shannon(drawn, first + second - drawn, weights, sizes))
    value = _jensen_shannon(first, second, weights, sizes)
    return [
        Measure("divergence.words.jensen_shannon", value, "bits/word", exact=exact),
        Measure(
            "divergence.words.chance", float(np.mean(chances)), "bits/word", None, min(chances), max(chances), False
        ),
    ]


def _jensen_shannon(first: Counts, second: Counts, weights: Floats, sizes: tuple[int, int]) -> float:
    p, q = first / sizes[0], second / sizes[1]
    middle = (p + q) / 2
    return float((weights * (_bits(p, middle) + _bits(q, middle))).sum() / 2)


def _bits(p: Floats, middle: Floats) -> Floats:
    """p log2(p / middle), 0 where p is."""
    ratio = np.divide(p, middle, out=np.ones_like(p), where=p > 0)
    bits: Floats = p * np.log2(ratio)
    return bits


def _aligned(first: State, second: State) -> tuple[Counts, Counts, Floats]:
    """Counts of each type in both, and its weight: 1 if frequent, else the number of types per sampled type."""
    level = max(first["level"], second["level"])
    certain = CERTAIN * max(first["bound"], second["bound"])
    types = np.union1d(first["hashes"], second["hashes"])
    columns = []
    for state in (first, second):
        column = np.zeros(len(types), dtype=np.int64)
        column[np.searchsorted(types, state["hashes"])] = state["counts"]
        columns.append(column)
    frequent = np.maximum(*columns) > certain
    is_sampled = np.arange(len(types)) < sample_size(types, level)
    if not (first["sampled"] or second["sampled"]):
        frequent[:] = True
    weights = np.where(frequent, 1.0, np.where(is_sampled, 2.0**level, 0.0))
    return columns[0], columns[1], weights
