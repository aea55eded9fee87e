"""Supersenses of hand-made dictionaries, computed by hand, and of the real one where it is installed."""

import pytest

from data_schemas.errors import EnvironmentProblem
from stages.common.wordnet import installed_folder
from stages.profile.coverage.concepts import Concepts
from tests.stages.common.test_wordnet import write_wordnet
from tests.stages.profile.batches import batch, values


@pytest.fixture
def concepts(tmp_path):
    """`dog` was tagged 42 times as an animal and twice as a motion, `goose` 3 times as a bird."""
    return Concepts(str(write_wordnet(tmp_path)))


def test_shares_by_hand(concepts):
    state = concepts.add(concepts.empty(), batch(["Geese chase the dogs, dog!", "unheard-of FAST"], language="en"))
    figures = values(concepts.measures(state))
    assert figures["concepts.known"] == 5 / 8  # geese, chase, dogs, dog, fast; not: the, unheard, of
    assert figures["concepts.share", "noun.animal"] == pytest.approx((1 + 2 * 42 / 44) / 5)
    assert figures["concepts.share", "verb.motion"] == pytest.approx((1 + 2 * 2 / 44) / 5)
    assert figures["concepts.share", "adv.all"] == pytest.approx(1 / 5)
    assert figures["concepts.words", "noun.animal: dog"] == pytest.approx((84 / 44) / (1 + 84 / 44))
    assert sum(value for name, value in figures.items() if name[0] == "concepts.share") == pytest.approx(1)


def test_parts_add_up_and_other_languages_are_left_alone(concepts):
    texts = ["dogs and a goose", "small geese", "fast dog dog", ""]
    whole = concepts.add(concepts.empty(), batch(texts))
    parts = concepts.empty()
    for text in reversed(texts):
        parts = concepts.merge(concepts.add(concepts.empty(), batch([text])), parts)
    assert values(concepts.measures(whole)) == values(concepts.measures(parts))
    german = concepts.add(concepts.empty(), batch(["dog fast"], language="de"))
    assert list(concepts.measures(german)) == list(concepts.measures(concepts.empty())) == []


def test_without_wordnet_the_figure_says_how_to_get_it(tmp_path):
    absent = Concepts(str(tmp_path / "nowhere"))
    [row] = absent.measures(absent.add(absent.empty(), batch(["dog"])))
    assert row.measure == "concepts.left_out" and "apt-get install wordnet-base" in row.item


def test_the_real_dictionary_tells_a_menu_from_a_battle():
    try:
        concepts = Concepts(str(installed_folder()))
    except EnvironmentProblem as refusal:
        pytest.skip(str(refusal))
    menu = (
        "Grilled salmon with potatoes, butter and lemon; then cheese, bread and a glass of wine. I is a single letter."
    )
    battle = "Soldiers attacked the regiment and the army fought the invaders until the troops surrendered."
    shares = [values(concepts.measures(concepts.add(concepts.empty(), batch([text])))) for text in (menu, battle)]
    assert shares[0]["concepts.share", "noun.food"] > 0.3 > shares[1].get(("concepts.share", "noun.food"), 0)
    assert shares[1]["concepts.share", "verb.competition"] > 0.1
    assert shares[1]["concepts.share", "noun.person"] + shares[1]["concepts.share", "noun.group"] > 0.2
