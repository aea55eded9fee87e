import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.minhash import band_entries, sign
from stages.common.minhash_config import Banding
from stages.dedup.near_duplicates import lsh_buckets
from stages.dedup.near_duplicates.components import joined
from stages.dedup.near_duplicates.lsh_buckets import (
    NEIGHBORS,
    bucket_pairs,
    bucket_partitions,
    distinct,
    hash_rows,
    large_bucket_pairs,
    partition_of,
)


def candidates(signatures, exact, banding, order=None, partitions=1):
    """Pairs of positions in `signatures`, whatever order the documents are numbered in."""
    count = len(signatures)
    order = np.arange(count) if order is None else np.asarray(order)
    shuffled, hashes = signatures[order], exact[order]
    content = np.empty(count, np.uint64)
    hash_rows(shuffled, content)
    entries = band_entries(shuffled, hashes, np.ones(count, np.int64), np.arange(count), banding)
    partition = partition_of(entries.keys, partitions)
    assert (partition < partitions).all()
    result = set()
    for number in range(partitions):
        mine = partition == number
        small, large = bucket_pairs(entries.keys[mine], entries.documents[mine])
        others = large_bucket_pairs(large, content[large.documents], hashes[large.documents, 0])
        for pairs in (small, others):
            result |= {
                tuple(sorted((int(order[a]), int(order[b])))) for a, b in zip(pairs.first, pairs.second, strict=True)
            }
    return result


def distinct_hashes(count):
    return np.arange(2 * count, dtype=np.uint64).reshape(-1, 2) * np.uint64(0x9E3779B97F4A7C15)


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 8, st.integers(0, 5)), max_size=20), st.integers(1, 5))
def test_candidates_are_all_pairs_that_share_a_band_or_their_exact_hash(rows, partitions):
    matrix = np.array(rows, dtype=np.uint32).reshape(-1, 9)
    exact = distinct_hashes(6)[matrix[:, 8]]
    expected = {
        (a, b)
        for a, b in itertools.combinations(range(len(rows)), 2)
        if rows[a][8] == rows[b][8] or any(rows[a][2 * k : 2 * k + 2] == rows[b][2 * k : 2 * k + 2] for k in range(4))
    }
    assert candidates(matrix[:, :8], exact, Banding(4, 2), partitions=partitions) == expected


@given(st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
def test_large_buckets_give_the_same_pairs_in_any_order_and_stay_bounded(seed, shuffle):
    count = 3 * NEIGHBORS
    generator = np.random.default_rng(seed)
    signatures = np.zeros((count, 4), dtype=np.uint32)
    signatures[:, 2:] = generator.integers(0, 12, (count, 2))
    result = candidates(signatures, distinct_hashes(count), Banding(2, 2))
    order = shuffle.sample(range(count), count)
    assert result == candidates(signatures, distinct_hashes(count), Banding(2, 2), order, 3)
    assert len(result) <= count * NEIGHBORS
    documents, clusters = joined(*np.array(sorted(result)).T.copy())
    assert len(documents) == count
    assert not clusters.any()


def test_a_thousand_copies_are_joined_by_999_pairs():
    result = candidates(np.ones((1000, 4), np.uint32), distinct_hashes(1000), Banding(2, 2))
    assert len(result) == 999


def planted(generator, documents, words, similarity):
    """Pairs of texts of `words` distinct words that share the first ones: J of single words is `similarity`."""
    common = round(2 * words * similarity / (1 + similarity))
    for number in range(documents):
        fresh = iter(generator.integers(0, 2**62, 3 * words).tolist())
        shared = [f"w{next(fresh)}" for _ in range(common)]
        for _ in range(2):
            yield " ".join([*shared, *(f"w{next(fresh)}" for _ in range(words - common))]), number


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
def test_planted_pairs_become_candidates_as_the_theory_says(similarity):
    """1 - (1 - s^rows)^bands within four standard errors of 1,000 pairs; affine permutations are nearly random."""
    import pyarrow as pa

    pairs, banding = 1000, Banding(16, 8)
    texts = [text for text, _ in planted(np.random.default_rng(7), pairs, 150, similarity)]
    signed = sign(pa.array(texts), 128, 1)
    common = round(300 * similarity / (1 + similarity))
    expected = banding.probability(common / (300 - common))
    result = candidates(signed.signatures, signed.exact, banding)
    share = sum((2 * number, 2 * number + 1) in result for number in range(pairs)) / pairs
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / pairs) + 1e-3)


def test_partitions_follow_the_number_of_keys(monkeypatch):
    monkeypatch.setattr(lsh_buckets, "ENTRIES", 100)
    assert [bucket_partitions(Banding(4, 2), documents) for documents in (0, 20, 21, 900)] == [1, 1, 2, 45]
    assert bucket_partitions(Banding(4, 2), 10**12) == 65_536


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=20), st.sampled_from([0, 1 << 35]))
def test_distinct_pairs_of_any_numbers(pairs, offset):
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T + offset
    result = distinct(first, first + second - offset)
    assert list(zip(*map(np.ndarray.tolist, result), strict=True)) == sorted(
        {(a + offset, a + b + offset) for a, b in pairs}
    )
