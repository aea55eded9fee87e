"""Entities counted by hand with a recognizer of one rule; the real one is `slow`."""

import re
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from stages.profile.coverage import entities
from stages.profile.coverage.entities import DEFAULT_PIPELINES, Entities, installed_pipelines, is_name, tidy_name
from stages.profile.coverage.passages import PassageSample
from tests.stages.profile.batches import batch, values
from tests.stages.profile.coverage.test_document_sample import with_column


@pytest.fixture
def recognizer(monkeypatch):
    """Capitalized words are people, numbers are cardinals."""

    class Reader(SimpleNamespace):
        memory_zone = nullcontext

        def __call__(self, text):
            return read(text)

    def read(text):
        found = re.finditer(r"\b[A-Z]\w+(?:'s)?|\d+", text)
        ents = [SimpleNamespace(text=m[0], label_="CARDINAL" if m[0].isdigit() else "PER") for m in found]
        return SimpleNamespace(ents=ents)

    monkeypatch.setattr(entities, "_pipeline", lambda distribution: Reader())
    monkeypatch.setattr(entities, "installed_pipelines", lambda wanted: {"en": "en-test"})


TEXTS = [
    ("en", "Anna met Anna's friend Bert 3 times"),
    ("en", "nobody"),
    (None, "Bert"),
    ("de", "Anna"),
    (None, "Анна"),
    ("en", ""),
]


def documents(*pairs):
    return with_column(batch([text for _, text in pairs]), "language", [language for language, _ in pairs])


def test_mentions_by_hand(recognizer):
    analysis = Entities(PassageSample(1.0))
    state = analysis.add(analysis.empty(), documents(*TEXTS))
    rows = list(analysis.measures(state))
    figures = values(rows)
    words = 8 + 1 + 1  # "Anna's" is two
    assert figures["entities.read"] == words
    assert figures["entities.per_1000_words", "PERSON"] == pytest.approx(1000 * 4 / words)
    assert figures["entities.per_1000_words", "CARDINAL"] == pytest.approx(1000 / words)
    assert figures["entities.PERSON", "Anna"] == 2 and figures["entities.PERSON", "Bert"] == 2
    assert figures["entities.unread", "de"] == 1 and figures["entities.unread", "unknown"] == 1
    assert all(row.exact for row in rows) and not any(row.measure == "entities.CARDINAL" for row in rows)
    assert analysis.examples(state)[0].document_id == "d0"
    parts = [analysis.add(analysis.empty(), documents(pair)) for pair in TEXTS]
    merged = analysis.empty()
    for part in reversed(parts):
        merged = analysis.merge(merged, part)
    assert values(analysis.measures(merged)) == figures


def test_a_sample_states_its_error(recognizer):
    analysis = Entities(PassageSample(0.2))
    texts = [f"Anna met Bert {n} times" if n % 2 else "nobody came" for n in range(2_000)]
    rows = {(row.measure, row.item): row for row in analysis.measures(analysis.add(analysis.empty(), batch(texts)))}
    anna, share = rows["entities.PERSON", "Anna"], rows["entities.per_1000_words", "PERSON"]
    assert anna.low < 1_000 < anna.high and 100 < anna.high - anna.low < 300 and not anna.exact
    assert share.low < 1000 * 2 / 7 < share.high


def test_what_is_not_installed_is_left_out_with_the_command():
    assert installed_pipelines(["no-such-pipeline"]) == {}
    analysis = Entities(PassageSample(1.0), ["no-such-pipeline"])
    [row] = analysis.measures(analysis.add(analysis.empty(), batch(["Anna"])))
    assert row.measure == "entities.left_out" and "pip install 'headrace[entities]'" in row.item


def test_names_have_one_spelling():
    assert tidy_name("the\n Supreme  Court's") == "Supreme Court" and tidy_name("“Nature”,") == "Nature"
    assert tidy_name("The ") == "The" and tidy_name("") == ""
    assert is_name("EU") and is_name("東京") and not is_name("R") and not is_name("39;s") and not is_name("=====a")
    assert not is_name("Section 207](http://example.org")


@pytest.mark.slow
def test_the_real_recognizer_finds_people_places_and_organizations():
    if not installed_pipelines(DEFAULT_PIPELINES):
        pytest.skip("spaCy and its English pipeline are not installed")
    analysis = Entities(PassageSample(1.0))
    text = "Angela Merkel visited Paris on Monday and spoke with Microsoft about 3 million dollars."
    figures = values(analysis.measures(analysis.add(analysis.empty(), batch([text], language="en"))))
    assert figures["entities.PERSON", "Angela Merkel"] == figures["entities.GPE", "Paris"] == 1
    assert figures["entities.ORG", "Microsoft"] == 1
    assert ("entities.per_1000_words", "DATE") in figures and ("entities.per_1000_words", "MONEY") in figures
    strings = entities._pipeline(DEFAULT_PIPELINES[0]).vocab.strings
    known = len(strings)
    analysis.add(analysis.empty(), batch([" ".join(f"Unheard{number}" for number in range(300))]))
    assert len(strings) == known, "the vocabulary does not grow with the text"
    alone = [analysis.add(analysis.empty(), batch([text])) for _ in range(2)]
    assert alone[0] == alone[1]
