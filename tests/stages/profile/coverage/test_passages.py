"""Passages depend on the document alone, miss nothing, and their sums estimate totals without bias."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.profile.coverage.passages import PASSAGE, PassageSample, Totals, language_of, rate_for, ratio_interval


@given(st.text(max_size=50), st.integers(0, 200))
def test_at_rate_one_the_passages_are_the_text(piece, times):
    text = piece * times
    passages = [passage.text for passage in PassageSample(1.0).drawn("id", text)]
    assert "".join("".join(passages).split()) == "".join(text.split())
    assert all(len(passage) <= PASSAGE + 100 for passage in passages)


def test_a_passage_is_drawn_by_id_and_position_at_its_rate():
    text = "word " * 40_000
    drawn = [len(list(PassageSample(0.25).drawn(f"{n}", text))) for n in range(40)]
    assert sum(drawn) == pytest.approx(0.25 * 40 * len(text) / PASSAGE, rel=0.1)
    assert list(PassageSample(0.25).drawn("7", text)) == list(PassageSample(0.25).drawn("7", text))
    few, more = (len(list(PassageSample(rate).drawn("7", text))) for rate in (0.1, 0.5))
    assert few < more
    assert all(set(passage.text.split()) == {"word"} for passage in PassageSample(1.0).drawn("7", text))


def test_totals_by_hand():
    sums = Totals().plus(3).plus(1)
    assert sums == (4, 10)
    estimate = sums.estimate(0.5)
    assert estimate.value == 8 and estimate.high - 8 == pytest.approx(1.959964 * math.sqrt(0.5 * 10) / 0.5)
    assert estimate.low == 4  # what was seen is there
    assert sums.estimate(1.0) == (4, 4, 4)


def test_ratios_by_hand_and_their_coverage():
    assert ratio_interval([4, 10], [20, 200], 40, 1.0) == (0.2, 0.2, 0.2)
    interval = ratio_interval([4, 10], [20, 200], 40, 0.5)  # residuals 3 - 2 and 1 - 2
    assert interval.high - 0.2 == pytest.approx(1.959964 * math.sqrt(0.5 * (1 + 1)) / 20)
    assert math.isnan(ratio_interval([0, 0], [0, 0], 0, 0.5).value)
    generator, held = np.random.default_rng(0), 0
    sizes = generator.integers(50, 400, 500)
    counts = generator.binomial(sizes, generator.uniform(0, 0.1, 500))
    for _ in range(200):
        seen = generator.random(500) < 0.3
        y, x = counts[seen].astype(float), sizes[seen].astype(float)
        found = ratio_interval([y.sum(), (y * y).sum()], [x.sum(), (x * x).sum()], (x * y).sum(), 0.3)
        held += found.low <= counts.sum() / sizes.sum() <= found.high
    assert held >= 180


def test_the_rate_for_an_amount_of_text():
    assert rate_for(1e6, 1e8) == 0.01 and rate_for(1e6, 10) == rate_for(1e6, 0) == 1.0


def test_a_document_without_a_language_is_english_if_its_letters_are_latin():
    assert language_of(None, "plain text, 1 2 3") == language_of(None, "") == language_of("en", "текст") == "en"
    assert language_of(None, "текст") == language_of(None, "שלום עולם") == "unknown" and language_of("de", "x") == "de"
