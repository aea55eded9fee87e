"""Topics, genres and keywords of corpora whose structure is known."""

import random

import pytest

from stages.profile.coverage.document_sample import DocumentSample, sampled
from stages.profile.coverage.keywords import fit_background, keyword_measures
from stages.profile.coverage.sampled_documents import SampledDocuments
from stages.profile.coverage.terms import terms
from stages.profile.coverage.topics import OTHER, fit_topics
from tests.stages.profile.batches import batch, values
from tests.stages.profile.coverage.test_document_sample import with_column

SUBJECTS = {
    "cooking": ["flour", "butter", "oven", "recipe", "sugar", "dough", "bake", "kitchen"],
    "sailing": ["anchor", "harbor", "mast", "rudder", "sails", "captain", "deck", "voyage"],
    "chess": ["pawn", "bishop", "rook", "knight", "opening", "endgame", "castling", "board"],
}
FILLER = ["the", "of", "and", "a", "to", "in", "is", "was", "it", "for", "on", "with", "as", "at", "by"]


def corpus(per_subject=80, genres=None):
    """Documents about one subject each; `genres` replaces the declared genre, which is the subject."""
    chosen = random.Random(0)
    rows = [(subject, n) for n in range(per_subject) for subject in SUBJECTS]
    texts = [" ".join(chosen.choices(SUBJECTS[s], k=15) + chosen.choices(FILLER, k=20)) for s, _ in rows]
    declared = genres or [subject for subject, _ in rows]
    return with_column(with_column(batch(texts, language="en"), "genre", declared), "id", [f"{s}-{n}" for s, n in rows])


def fitted(documents, **options):
    analysis = SampledDocuments(DocumentSample(per_stratum=100), **options)
    state = analysis.add(analysis.empty(), documents)
    return analysis.fitted(state), state


def test_topics_are_the_subjects_and_their_weights_those_of_the_documents():
    analysis, state = fitted(corpus(), topics=3)
    rows = [row for row in analysis.measures(state) if row.measure == "topics.weight"]
    named = {
        subject: row for row in rows for subject in SUBJECTS if set(row.item.split(", ")) <= set(SUBJECTS[subject])
    }
    assert set(named) == set(SUBJECTS)
    assert all(row.value == pytest.approx(1 / 3, abs=0.02) and row.exact for row in named.values())
    one = values(analysis.measures(analysis.add(analysis.empty(), corpus().slice(0, 1))))
    assert one["topics.weight", named["cooking"].item] > 0.9 and one["topics.weight", OTHER] == 0
    nothing = values(analysis.measures(analysis.add(analysis.empty(), batch(["", "zzz 123"]))))
    assert nothing["topics.weight", OTHER] == 1
    examples = {example.item: example.document_id for example in analysis.examples(state)}
    assert all(examples[row.item].startswith(subject) for subject, row in named.items())


def test_the_same_documents_give_the_same_models_in_any_order():
    documents = corpus(40)
    order = list(range(len(documents)))
    random.Random(1).shuffle(order)
    (first, state), (second, other) = fitted(documents), fitted(documents.take(order))
    assert list(first.measures(state)) == list(second.measures(other))


def test_a_corpus_that_is_too_small_has_no_topics_and_no_genres():
    analysis, state = fitted(corpus(5))
    assert {row.measure.split(".")[0] for row in analysis.measures(state)} == {"keywords"}
    analysis, state = fitted(batch([]))
    assert list(analysis.measures(state)) == list(analysis.examples(state)) == []
    assert fit_topics(sampled(DocumentSample().add({}, batch(["", " ", "7"] * 50))), 2) is None
    unfitted = SampledDocuments(DocumentSample())
    assert list(unfitted.measures(unfitted.empty())) == []


def test_a_document_under_a_wrong_genre_is_found_and_one_without_is_predicted():
    declared = [subject for _ in range(80) for subject in SUBJECTS]
    declared[0] = "chess"  # a document about cooking
    declared[1] = "unknown"  # about sailing
    analysis, state = fitted(corpus(genres=declared))
    figures = values(analysis.measures(state))
    assert figures["genres.confusion", "chess -> cooking"] == pytest.approx(1 / 240)
    assert figures["genres.confusion", "unknown -> sailing"] == pytest.approx(1 / 240)
    assert figures["genres.agreement"] == pytest.approx(238 / 239)
    assert figures["genres.predicted", "cooking"] == pytest.approx(1 / 3)
    wrong = [example for example in analysis.examples(state) if example.measure == "genres.confusion"]
    assert {"cooking-0", "sailing-0"} == {example.document_id for example in wrong}


def test_one_genre_is_no_classification():
    analysis, state = fitted(corpus(genres=["unknown"] * 240))
    assert not any(row.measure.startswith("genres") for row in analysis.measures(state))


def test_keywords_of_a_slice_are_the_words_that_it_has_more_of():
    whole = sampled(DocumentSample(100).add({}, corpus()))
    background = fit_background(whole)
    assert {"the", "of"} <= background.common
    rows = keyword_measures(background, [document for document in whole if document.genre == "chess"])
    words = {word for row in rows for word in row.item.split()}
    assert {"pawn", "rook", "endgame"} <= words <= set(SUBJECTS["chess"])
    assert {row.measure for row in keyword_measures(background, whole)} == {"keywords.share"}


def test_a_phrase_replaces_words_that_occur_in_it_alone():
    texts = ["we saw new zealand again", "new zealand won", "they left new zealand", "an old house", "the old road"]
    documents = sampled(DocumentSample().add({}, batch([f"{text} in {n}" for n, text in enumerate(texts * 3)])))
    items = {row.item for row in keyword_measures(fit_background(documents), documents)}
    assert "new zealand" in items and not {"new", "zealand"} & items


def test_terms_are_words_and_pairs_of_units_where_there_are_no_spaces():
    assert terms("Don't panic, HAL 9000! x") == ("don", "panic", "hal")
    assert terms("北京大学 好") == ("北京", "京大", "大学")
    assert terms("שלום עולם 😀") == ("שלום", "עולם")
