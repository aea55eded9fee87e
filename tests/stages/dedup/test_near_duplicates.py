import random
from itertools import pairwise

import numpy as np
import pytest
import xxhash
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st

from stages.dedup.clusters import survivors
from stages.dedup.lsh_buckets import NEIGHBOURS, candidate_pairs, verified_pairs
from stages.dedup.minhash import exact_hash, shingles, signatures


def jaccard(one: str, other: str) -> float:
    a, b = set(shingles(one)), set(shingles(other))
    return len(a & b) / len(a | b)


def with_changes(words: list[str], changes: int, seed: int) -> str:
    changed = list(words)
    for position in random.Random(seed).sample(range(len(words)), changes):
        changed[position] = f"changed{seed}{position}"
    return " ".join(changed)


def test_signatures_are_datasketchs_own():
    text = "The quick brown fox jumps over the lazy dog and Sleeps"
    theirs = MinHash(num_perm=64, hashfunc=xxhash.xxh32_intdigest)
    for gram in shingles(text):
        theirs.update(gram)
    ours = signatures([text, "short"], 64)
    assert ours.dtype == np.uint32
    assert (ours[0] == theirs.hashvalues).all()


def test_shingles_fold_case_and_white_space():
    assert shingles("A b\nC d  E f") == [b"a b c d e", b"b c d e f"]
    assert shingles("two words") == [b"two words"]
    assert exact_hash("A  b\n") == exact_hash("a b")
    assert exact_hash("a b") != exact_hash("ab")


def test_planted_near_duplicates_are_found_and_others_are_not():
    words = [[f"w{document}x{position}" for position in range(400)] for document in range(60)]
    originals = [" ".join(one) for one in words]
    near = [with_changes(one, 6, seed) for seed, one in enumerate(words[:20])]
    far = [with_changes(one, 90, seed) for seed, one in enumerate(words[20:40])]
    texts = originals + near + far
    assert min(jaccard(originals[n], near[n]) for n in range(20)) > 0.8
    assert max(jaccard(originals[20 + n], far[n]) for n in range(20)) < 0.5
    signed = signatures(texts, 128)
    found = {tuple(pair) for pair in verified_pairs(signed, candidate_pairs(signed, 16, 8), 0.75).tolist()}
    assert found == {(number, 60 + number) for number in range(20)}


def test_candidates_follow_the_lsh_curve():
    """1 - (1 - s^rows)^bands, with s the share of equal signature values, over random signatures."""
    generator = np.random.default_rng(0)
    base = generator.integers(0, 2**32, (3000, 32), dtype=np.uint32)
    for similarity in (0.5, 0.8):
        other = np.where(generator.random(base.shape) < similarity, base, base + 1).astype(np.uint32)
        both = np.empty((6000, 32), dtype=np.uint32)
        both[0::2], both[1::2] = base, other
        found = len(candidate_pairs(both, bands=8, rows=4)) / 3000
        assert found == pytest.approx(1 - (1 - similarity**4) ** 8, abs=0.03)


def test_a_bucket_of_many_joins_them_all_in_linear_space():
    signed = np.ones((1000, 8), dtype=np.uint32)
    pairs = candidate_pairs(signed, 2, 4)
    assert len(pairs) == 999
    keep, kept = survivors(
        [f"{n:04d}" for n in range(1000)],
        np.ones(1000, np.int64),
        [bytes([n % 256, n // 256]) for n in range(1000)],
        pairs,
    )
    assert keep.sum() == 1
    assert set(kept) == {"0000"}


def test_a_large_bucket_of_different_documents_stays_bounded():
    signed = np.zeros((3000, 8), dtype=np.uint32)
    signed[:, 4:] = np.random.default_rng(0).integers(0, 2**32, (3000, 4), dtype=np.uint32)
    assert 0 < len(candidate_pairs(signed, 2, 4)) <= 3000 * NEIGHBOURS


def clusters_of(signed, pairs):
    """Each document's cluster, as a set of names; a document's name is its signature."""
    names = [row.tobytes() for row in signed]
    count = len(signed)
    ids = [f"{position:04d}" for position in range(count)]
    distinct = [position.to_bytes(2, "big") for position in range(count)]
    _, kept = survivors(ids, np.ones(count, np.int64), distinct, pairs)
    return {frozenset(name for name, of in zip(names, kept, strict=True) if of == one) for one in set(kept)}


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 8), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_clusters_are_those_of_all_similar_pairs_in_a_bucket_in_any_order(rows, shuffle):
    signed = np.array(rows, dtype=np.uint32)
    bands = signed.reshape(len(rows), 4, 2)
    similar = (signed[:, None] == signed[None]).mean(axis=2) >= 0.6
    every_pair = np.argwhere(similar & (bands[:, None] == bands[None]).all(axis=3).any(axis=2))
    expected = clusters_of(signed, every_pair)
    shuffled = signed[shuffle.sample(range(len(rows)), len(rows))]
    for order in (signed, shuffled):
        assert clusters_of(order, verified_pairs(order, candidate_pairs(order, 4, 2), 0.6)) == expected


documents = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 6)), min_size=1, max_size=12)


@given(documents, st.data())
def test_the_survivor_does_not_depend_on_the_order_of_the_documents(rows, data):
    """Rows are (length, exact class); near pairs are drawn; any order gives the same survivors and clusters."""
    ids = [f"d{number}" for number in range(len(rows))]
    pairs = data.draw(st.lists(st.tuples(*[st.integers(0, len(rows) - 1)] * 2), max_size=8))
    order = data.draw(st.permutations(range(len(rows))))
    place = {old: new for new, old in enumerate(order)}

    def run(positions, joined):
        lengths = np.array([rows[position][0] for position in positions])
        exact = [bytes([rows[position][1]]) for position in positions]
        keep, kept = survivors([ids[p] for p in positions], lengths, exact, np.array(joined, np.int64).reshape(-1, 2))
        return {ids[p]: (bool(k), survivor) for p, k, survivor in zip(positions, keep, kept, strict=True)}

    plain = run(range(len(rows)), pairs)
    assert plain == run(order, [(place[a], place[b]) for a, b in pairs])
    for one, other in pairs:
        assert plain[ids[one]][1] == plain[ids[other]][1]
    assert all(plain[survivor][0] for _, survivor in plain.values())


def test_the_longest_stays_then_the_smallest_id():
    keep, kept = survivors(["c", "b", "a"], np.array([5, 5, 4]), [b"1", b"2", b"3"], np.array(list(pairwise(range(3)))))
    assert keep.tolist() == [False, True, False]
    assert kept == ["b", "b", "b"]
