"""The sample is the same however the documents are divided, and its intervals hold."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.profile.coverage.document_sample import (
    PASSAGE,
    DocumentSample,
    SampledDocument,
    is_whole,
    sampled,
    stratified_interval,
)
from tests.stages.profile.batches import batch


def with_column(documents, name, values):
    number = documents.schema.names.index(name)
    return documents.set_column(number, documents.schema.field(number), pa.array(values, pa.string()))


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 5), st.randoms(use_true_random=False))
def test_any_division_and_order_keeps_the_same_documents(genres, kept, random):
    sample = DocumentSample(kept)
    whole = with_column(batch(["text"] * len(genres)), "genre", [f"genre {number}" for number in genres])
    rows = list(range(len(genres)))
    random.shuffle(rows)
    cut = random.randint(0, len(rows))
    parts = [sample.add(sample.empty(), whole.take(np.array(part, dtype=int))) for part in (rows[:cut], rows[cut:])]
    assert sample.merge(*parts) == sample.merge(*parts[::-1]) == sample.add(sample.empty(), whole)


def test_every_genre_is_sampled_and_weighted_by_its_documents():
    sample = DocumentSample(per_stratum=10)
    rare = with_column(batch(["rare"] * 12, genre="speech"), "id", [f"r{n}" for n in range(12)])
    state = sample.add(sample.empty(), batch(["common"] * 1_000, genre="news"))
    documents = sampled(sample.add(state, rare))
    assert {document.genre for document in documents} == {"news", "speech"} and len(documents) == 20
    assert sum(document.weight for document in documents) == pytest.approx(1_012)
    share = stratified_interval([document.genre == "speech" for document in documents], documents)
    assert share.value == pytest.approx(12 / 1_012)
    assert not is_whole(state) and is_whole(sample.add(sample.empty(), rare.slice(0, 10))) and is_whole({})
    assert not is_whole(sample.add(sample.empty(), batch(["wort " * 1_000])))


def documents_of(weight, number):
    return [SampledDocument(n, f"{weight} {n}", "g", "en", "", weight) for n in range(number)]


def test_a_stratified_interval_by_hand():
    """Two strata: 40 documents of which 4 are seen, and 2 seen whole."""
    interval = stratified_interval([1, 0, 0, 0, 1, 1], [*documents_of(10.0, 4), *documents_of(1.0, 2)])
    assert interval.value == pytest.approx((40 * 0.25 + 2) / 42)
    variance = (40 / 42) ** 2 * (1 - 1 / 10) * 0.25 / 4  # of 1, 0, 0, 0: 0.25 with one degree less
    assert interval.high - interval.value == pytest.approx(1.959964 * math.sqrt(variance))
    exact = stratified_interval([1, 0], documents_of(1.0, 2))
    assert exact == (0.5, 0.5, 0.5)
    sure = stratified_interval([1] * 4, documents_of(2.0, 4))
    assert sure.high == 1 and 0.5 < sure.low < 0.9  # four of eight were seen: no certainty


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = 0
    for trial in range(200):
        sample = DocumentSample(per_stratum=50)
        drawn = with_column(batch(["x"] * 300), "id", [f"{trial}/{n}" for n in range(300)])
        documents = sampled(sample.add(sample.empty(), drawn))
        interval = stratified_interval([int(d.id.split("/")[1]) % 4 == 0 for d in documents], documents)
        held += interval.low <= 0.25 <= interval.high
    assert held >= 180


def test_documents_that_a_large_corpus_will_not_need_are_not_carried_along():
    sample = DocumentSample(per_stratum=10, expected=100_000)
    assert len(sampled(sample.add(sample.empty(), batch(["x"] * 20_000)))) == 10
    rare = sampled(sample.add(sample.empty(), batch(["x"] * 1_000, genre="rare")))
    assert 0 < len(rare) < 10 and sum(document.weight for document in rare) == pytest.approx(1_000)
    assert sampled(sample.add(sample.empty(), batch(["x"] * 10, genre="rarer"))) == []


def test_a_passage_is_whole_words_from_somewhere_in_a_long_text():
    state = DocumentSample().add({}, batch(["wort " * 5_000, "字" * 5_000, "short", ""]))
    passages = {document.id: document.passage for document in sampled(state)}
    assert set(passages["d0"].split()[:-1]) == {"wort"} and 1_000 < len(passages["d0"]) <= PASSAGE
    assert passages["d1"] == "字" * PASSAGE and passages["d2"] == "short" and passages["d3"] == ""
