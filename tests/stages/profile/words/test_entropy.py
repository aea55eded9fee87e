"""Entropies of texts so short that they can be computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.profile.sketches import type_counts
from stages.profile.words import entropy
from stages.profile.words.divergence import divergence
from stages.profile.words.laws import heaps, zipf
from stages.profile.words.vocabulary import NAMES, Vocabulary
from tests.stages.profile.batches import batch, values
from tests.stages.profile.sketches.test_type_counts import hashes


def counted(*counts):
    return type_counts.of(hashes([kind for kind, count in enumerate(counts, 1) for _ in range(count)]))


def test_the_entropy_of_two_one_and_one():
    state = counted(2, 1, 1)
    assert entropy.plug_in(state).value == pytest.approx(0.5 * 1 + 0.25 * 2 + 0.25 * 2)
    assert entropy.miller_madow(state).value == pytest.approx(1.5 + (3 - 1) / (2 * 4 * math.log(2)))
    # G(1) = -gamma - ln 2 and G(2) = 2 - gamma - ln 2 (Grassberger 2003, equations 28-30).
    g1, g2 = -np.euler_gamma - math.log(2), 2 - np.euler_gamma - math.log(2)
    assert entropy.grassberger(state).value == pytest.approx((math.log(4) - (2 * g2 + g1 + g1) / 4) / math.log(2))
    # Coverage 1 - 2/4: probabilities 1/4, 1/8, 1/8; each term is divided by 1 - (1 - p) ** 4.
    terms = [(0.25, 2), (0.125, 3), (0.125, 3)]
    expected = sum(p * bits / (1 - (1 - p) ** 4) for p, bits in terms)
    assert entropy.chao_shen(state).value == pytest.approx(expected)


@pytest.mark.parametrize("name", entropy.ESTIMATORS)
def test_one_type_has_no_entropy_and_no_tokens_have_none_at_all(name):
    estimate = entropy.ESTIMATORS[name]
    assert estimate(counted(1_000)).value == pytest.approx(0, abs=2e-3)
    assert math.isnan(estimate(counted()).value)
    assert estimate(counted(1)).value >= 0 or name == "grassberger"


def test_the_corrections_come_nearer_to_the_truth_than_the_plug_in():
    drawn = np.random.default_rng(0).integers(1, 1_001, size=1_000)
    state = type_counts.of(hashes(drawn))
    errors = {name: abs(estimate(state).value - math.log2(1_000)) for name, estimate in entropy.ESTIMATORS.items()}
    assert errors["plug_in"] > 0.6 and errors["miller_madow"] < 0.45
    assert errors["grassberger"] < 0.15 and errors["chao_shen"] < 0.15


def test_conditional_entropy_of_words_by_hand():
    """a b a c: bigrams ab, ba, ac have log2 3 bits; words a, b, a, c have 1.5."""
    vocabulary = Vocabulary()
    figures = values(vocabulary.measures(vocabulary.add(vocabulary.empty(), batch(["A b a c", "", "z"]))))
    counts = {"a": 2, "b": 1, "c": 1, "z": 1}
    unigram = sum(count / 5 * math.log2(5 / count) for count in counts.values())
    assert figures["entropy.unigram.plug_in"] == pytest.approx(unigram)
    assert figures["entropy.bigram_conditional.plug_in"] == pytest.approx(math.log2(3) - unigram)
    assert figures["entropy.trigram_conditional.plug_in"] == pytest.approx(math.log2(2) - math.log2(3))
    assert figures["entropy.document.plug_in.mean"] == pytest.approx((1.5 + 0) / 2)
    assert figures["ngrams.unigram.top", "a"] == 2 and figures["ngrams.trigram.top", "b a c"] == 1
    assert figures["vocabulary.unigram.types"] == 4 and figures["vocabulary.bigram.once"] == 3
    assert figures["entropy.bytes.plug_in"] == pytest.approx(
        entropy.of_bytes(np.bincount(np.frombuffer(b"A b a cz", np.uint8), minlength=256))
    )


TEXTS = st.lists(st.text(st.sampled_from("ab c\n漢é😀"), max_size=30), max_size=8)


@given(TEXTS, TEXTS, st.sampled_from([(8, 8), (1 << 10, 1 << 10)]))
def test_the_words_of_two_parts_merge_to_those_of_the_whole(first, second, capacity):
    vocabulary = Vocabulary(*capacity)
    parts = [vocabulary.add(vocabulary.empty(), batch(texts)) for texts in (first, second)]
    whole = vocabulary.add(vocabulary.empty(), batch([*first, *second]))
    merged = vocabulary.merge(*parts)
    if not any(whole["counts"][name]["sampled"] for name in NAMES.values()):
        assert vocabulary.measures(merged) == vocabulary.measures(whole)
    for name in NAMES.values():
        assert merged["counts"][name]["tokens"] == whole["counts"][name]["tokens"]
        assert merged["counts"][name]["level"] == whole["counts"][name]["level"]
    assert (merged["bytes"] == whole["bytes"]).all() and merged["documents"]["sum"] == whole["documents"]["sum"]


def test_laws_are_recovered_from_text_that_obeys_them():
    ranks = np.arange(1, 20_001)
    counts = np.rint(3e6 / ranks**1.2).astype(int)
    state = counted()
    state = {**state, "hashes": np.sort(hashes(ranks)), "tokens": int(counts.sum())}
    state["counts"], state["errors"] = counts, np.zeros(len(ranks), np.int64)
    fit = zipf(state)
    assert fit is not None and fit.low <= fit.exponent <= fit.high and abs(fit.exponent - 1.2) < 0.005
    assert fit.ranks == 5_000 and fit.distance < 0.002 and fit.exact
    assert fit.curve[:4] == [(1, 3_000_000), (2, 1_305_826), (5, 434_868), (10, 189_287)]
    assert fit.curve[-2:] == [(10_000, counts[9_999]), (20_000, counts[-1])]
    growth = heaps(state)
    assert growth is not None and 0 < growth.exponent < 1 and growth.words[1] == counts.sum()
    assert [types for _, types in growth.curve] == sorted(types for _, types in growth.curve)
    assert growth.curve[-1] == (counts.sum(), pytest.approx(20_000)), "all of the text has all of the types"
    assert zipf(counted(3, 2)) is None and heaps(counted(3, 2)) is None
    even = heaps(counted(*[1] * 2_000))
    assert even is not None and even.exponent == pytest.approx(1), "every word is new"


def test_divergence_of_equal_different_and_disjoint_words():
    state, other = counted(400, 100, 100), type_counts.of(hashes([7] * 600))
    same = values(divergence(state, state))
    assert same["divergence.words.jensen_shannon"] == 0 and 0 < same["divergence.words.chance"] < 0.01
    assert values(divergence(state, other))["divergence.words.jensen_shannon"] == pytest.approx(1)
    assert divergence(state, counted()) == []
    # p = 2/3, 1/3 and q = 1/3, 2/3: the middle is 1/2, 1/2.
    first, second = counted(200, 100), counted(100, 200)
    expected = 2 / 3 * math.log2(4 / 3) + 1 / 3 * math.log2(2 / 3)
    assert values(divergence(first, second))["divergence.words.jensen_shannon"] == pytest.approx(expected)


def test_divergence_of_sketches_is_near_that_of_all_types():
    generator = np.random.default_rng(3)
    cumulated = np.cumsum(1 / np.arange(1, 50_001))
    tokens = [np.searchsorted(cumulated, generator.random(size) * cumulated[-1]) for size in (400_000, 40_000)]
    tokens[1][::10] += 50_000
    table = hashes(range(1, 100_001))
    exact, sketched = (
        values(divergence(*(type_counts.of(table[part], capacity) for part in tokens)))
        for capacity in (1 << 20, 1 << 13)
    )
    for name, value in exact.items():
        assert sketched[name] == pytest.approx(value, rel=0.1), name
