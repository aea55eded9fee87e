from collections import Counter

import numpy as np
import pytest
from datasketch import HyperLogLog
from hypothesis import given
from hypothesis import strategies as st

from stages.common.word_hashes import mix
from stages.profile.sketches import type_counts

TOKENS = st.lists(st.integers(1, 60), max_size=80)


def hashes(tokens):
    return np.array([mix(np.uint64(token)) for token in tokens], dtype=np.uint64)


def sample(state):
    size = type_counts.sample_size(state["hashes"], state["level"])
    return state["level"], dict(zip(state["hashes"][:size].tolist(), state["counts"][:size].tolist(), strict=True))


@given(st.lists(TOKENS, min_size=1, max_size=5), st.sampled_from([8, 16, 1_000]), st.randoms())
def test_parts_merge_to_the_state_of_the_whole_in_any_order(parts, capacity, random):
    tokens = [token for part in parts for token in part]
    whole = type_counts.of(hashes(tokens), capacity)
    states = [type_counts.of(hashes(part), capacity) for part in parts]
    random.shuffle(states)
    while len(states) > 1:
        states.append(type_counts.merge(states.pop(), states.pop(random.randrange(len(states))), capacity))
    (merged,) = states
    assert sample(merged) == sample(whole), "the sample is exactly that of the whole"
    assert merged["tokens"] == len(tokens) and len(merged["hashes"]) <= capacity
    assert merged["sampled"] == (len(set(tokens)) > capacity)
    truth = Counter(hashes(tokens).tolist())
    known = dict(zip(merged["hashes"].tolist(), merged["counts"].tolist(), strict=True))
    errors = dict(zip(merged["hashes"].tolist(), merged["errors"].tolist(), strict=True))
    for hashed, count in truth.items():
        if hashed in known:
            assert known[hashed] <= count <= known[hashed] + errors[hashed]
        else:
            assert count <= merged["bound"]


@pytest.fixture(scope="module")
def zipf():
    """Counts of 2.5 million tokens by Zipf's law, their state from 20 parts with a capacity of 2 ** 15, all hashes."""
    generator = np.random.default_rng(5)
    cumulated = np.cumsum(1 / np.arange(1, 400_001))
    counts, state = np.zeros(400_000, np.int64), None
    with np.errstate(over="ignore"):
        all_hashes = hashes(range(1, 400_001))
    for _ in range(20):
        drawn = np.searchsorted(cumulated, generator.random(125_000) * cumulated[-1])
        counts += np.bincount(drawn, minlength=400_000)
        part = type_counts.of(all_hashes[drawn], 1 << 15)
        state = part if state is None else type_counts.merge(state, part, 1 << 15)
    return counts, state, all_hashes


def test_a_sketch_estimates_entropy_and_types_within_its_stated_error(zipf):
    counts, state = zipf[0][zipf[0] > 0], zipf[1]
    tokens = int(counts.sum())
    truth = float((counts * np.log2(tokens / counts)).sum() / tokens)
    entropy = type_counts.token_mean(state, lambda n: np.log2(tokens / n))
    assert state["sampled"] and entropy.low < truth < entropy.high and entropy.high - entropy.low < 0.12
    for function, number in ((lambda n: np.ones(len(n)), len(counts)), (lambda n: 1.0 * (n == 1), (counts == 1).sum())):
        estimate = type_counts.type_sum(state, function)
        assert estimate.low < number < estimate.high and estimate.high - estimate.low < 0.08 * number


def test_frequent_types_are_counted_within_their_bounds_and_in_order(zipf):
    counts, state, table = zipf
    found, low, errors = type_counts.most_frequent(state, 100)
    truth = dict(zip(table.tolist(), counts.tolist(), strict=True))
    assert (np.diff(low) <= 0).all() and (errors <= state["bound"]).all()
    for hashed, count, error in zip(found.tolist(), low.tolist(), errors.tolist(), strict=True):
        assert count <= truth[hashed] <= count + error
    assert set(table[:90].tolist()) <= set(found.tolist())


def test_the_number_of_types_is_nearer_than_a_hyperloglog(zipf):
    counts, state, table = zipf
    distinct = (counts > 0).sum()
    other = HyperLogLog(p=14, hashfunc=lambda value: value)
    for hashed in table[counts > 0].tolist():
        other.update(hashed >> 32)
    ours = type_counts.type_sum(state, lambda n: np.ones(len(n))).value
    assert abs(ours / distinct - 1) < 0.03 and abs(other.count() / distinct - 1) < 0.03
