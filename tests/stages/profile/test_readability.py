import numpy as np
import pytest

from stages.profile.readability import FORMULAS, Readability
from stages.profile.sentence_measures import sentence_measures
from stages.profile.words.document_words import document_words
from tests.stages.profile.batches import batch, values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat sat. The dog ran!", (2, 6, 0)),
        ("See e.g. this line. Is it one? Yes", (3, 9, 0)),
        ("A heading\n\nand text below it", (2, 8, 1)),
        ("table make beautiful idea whole rhythm", (1, 2 + 1 + 3 + 2 + 1 + 1, 1)),
        ("", (0, 0, 0)),
        ("Дом стоит. Река течёт.", (2, 1 + 2 + 2 + 2, 0)),
        ("Mühle … Straße…", (2, 2 + 2, 0)),
    ],
)
def test_sentences_syllables_and_long_words_by_hand(text, expected):
    is_english = np.array([text.isascii()])
    columns = sentence_measures(document_words(batch([text])), is_english)
    assert tuple(int(column[0]) for column in columns) == expected


def test_a_score_is_that_of_the_published_formula():
    text = "The cat sat on the mat. " * 20  # 6 words and 6 syllables a sentence
    readability = Readability()
    state = readability.add(readability.empty(), batch([text, "too short", text], language="en"))
    other = readability.add(readability.empty(), batch([text], language="eo"))
    figures = values(readability.measures(readability.merge(state, other)))
    assert figures["readability.flesch_en.mean"] == pytest.approx(206.835 - 1.015 * 6 - 84.6, abs=0.051)
    assert figures["readability.lix_en.mean"] == pytest.approx(6, abs=0.051)
    assert figures["readability.flesch_en.documents"] == 2
    assert figures["readability.left_out", "short"] == figures["readability.left_out", "no_formula"] == 1


@pytest.mark.parametrize("language", FORMULAS)
def test_short_words_in_short_sentences_are_easier(language):
    easy, hard = "La de la. " * 60, "komplikation organisationen " * 60
    readability = Readability()
    scores = [
        values(readability.measures(readability.add(readability.empty(), batch([text], language=language))))
        for text in (easy, hard)
    ]
    name = f"readability.flesch_{language}.mean"
    assert scores[0][name] > 60 > scores[1][name]
