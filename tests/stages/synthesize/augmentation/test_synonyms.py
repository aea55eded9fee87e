"""Synonyms: part of speech, inflection, case, and what is never replaced."""

import pytest

from stages.common.wordnet import installed_folder, load
from stages.synthesize.augmentation.inflection import Form, inflected
from stages.synthesize.augmentation.synonyms import Synonyms
from stages.synthesize.method import Failure
from tests.stages.common.test_wordnet import write_wordnet

try:
    FOLDER = installed_folder()
except Exception:
    FOLDER = None
installed = pytest.mark.skipif(FOLDER is None, reason="wordnet-base is not installed")
TEXT = (
    "She was helping the children of the village, and they carried it. Helping is what she liked.\r\n"
    "    children = village(helping)\r\nIn 1984 the Village People sang for $5 of the children at https://village.example."
)


def test_by_hand(tmp_path):
    synonyms = Synonyms(write_wordnet(tmp_path), alpha=1, senses=1)
    assert synonyms.replace("They dog the dogs", 0) == "They chase the dogs", (
        "verb after a pronoun, noun after an article"
    )
    assert synonyms.replace("I will dog it", 0) == "I will chase it"
    inserted = synonyms.insert("I dog it", 3)
    assert sorted(inserted.split()) == ["I", "chase", "chase", "chase", "dog", "it"], "three, as alpha is 1"
    assert synonyms.replace("It is 5 dogs and no geese", 0) == Failure("no word has a synonym"), "Gray goose is a name"
    assert synonyms.replace("Das ist der Hund, und er ist sehr gross und auch alt", 0) == Failure(
        "the text is not English"
    )


@installed
def test_synonyms_are_inflected_and_keep_their_case():
    output = Synonyms(FOLDER, alpha=1, senses=1).replace(TEXT, 5)
    assert output.startswith(("She was assisting the ", "She was aiding the "))
    assert "Assisting is" in output or "Aiding is" in output
    for kept in ("    children = village(helping)\r\n", "In 1984 ", "Village People", "$5", "https://village.example."):
        assert kept in output


@installed
@pytest.mark.parametrize(
    ("base_form", "part_of_speech", "form", "expected"),
    [
        ("stop", "v", Form.ING, "stopping"), ("stop", "v", Form.PAST, "stopped"), ("carry", "v", Form.PAST, "carried"),
        ("write", "v", Form.PAST, None), ("lie", "v", Form.ING, "lying"), ("make", "v", Form.ING, "making"),
        ("agree", "v", Form.PAST, "agreed"), ("see", "v", Form.ING, "seeing"), ("go", "v", Form.S, "goes"),
        ("child", "n", Form.S, "children"), ("box", "n", Form.S, "boxes"), ("city", "n", Form.S, "cities"),
        ("day", "n", Form.S, "days"), ("play", "v", Form.S, "plays"),
    ],
)  # fmt: skip
def test_inflections(base_form, part_of_speech, form, expected):
    assert inflected(load(FOLDER), base_form, part_of_speech, form) == expected


@installed
def test_an_article_fits_what_follows_it():
    outputs = {Synonyms(FOLDER, alpha=1, senses=3).replace("It was an error and a mistake", seed) for seed in range(20)}
    assert all("an mistake" not in str(output) and "a error" not in str(output) for output in outputs)
