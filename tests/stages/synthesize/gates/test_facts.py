import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.synthesize.gates.facts import changed_names, changed_numbers, numbers


@pytest.mark.parametrize(
    ("written", "fact"),
    [
        ("$1.13bn", "1.13E+9 $"),
        ("1.13 billion dollars", "1.13E+9 $"),
        ("$1,130,000,000", "1.13E+9 $"),
        ("1.13 trillion dollars", "1.13E+12 $"),
        ("$5m", "5000000 $"),
        ("5 m", "5 m"),
        ("25 km", "25 km"),
        ("25 kilometres", "25 km"),
        ("20 %", "20 %"),
        ("20 percent", "20 %"),
        ("3,5", "3.5"),
        ("1.234.567", "1234567"),
        ("1\u202f000", "1000"),
        ("٣٫٥ km", "3.5 km"),
        ("12", "12"),
        ("36.6°C", "36.6 °C"),
        ("10 men", "10"),
        ("5 a day", "5"),
        ("9" * 100, "9" * 100),
    ],
)
def test_a_number_has_one_form_for_one_meaning(written, fact):
    assert list(numbers(f"It was {written}, they said.")) == [fact]


def test_the_fault_of_apertium_is_found():
    changes = changed_numbers("Profits rose to $1.13bn in 2004.", "The profits rose to 1.13 trillion dollars in 2004.")
    assert (changes.lost, changes.added, changes.kept) == (["1.13E+9 $"], ["1.13E+12 $"], 1)
    assert changes.sentence() == "lost 1.13E+9 $; new 1.13E+12 $"


def test_a_number_that_is_there_twice_and_then_once_changed():
    assert changed_numbers("5 and 5", "5").lost == ["5"]


@given(st.text())
def test_no_text_differs_from_itself(text):
    assert changed_numbers(text, text).amount == changed_names(text, text, None).amount == 0


def test_names_may_move_to_the_start_of_a_sentence_and_lose_nothing():
    parent = "Yesterday the old mill in Oakham burned. Smith saw the fire from Leeds."
    assert changed_names(parent, "Oakham mill burned. The fire was seen from Leeds by Smith.", "en").amount == 0
    changes = changed_names(parent, "Yesterday the old mill in York burned. Smith saw the fire.", "en")
    assert (changes.lost, changes.added) == (["leeds", "oakham"], ["york"])
    assert changes.share == 1.0


def test_languages_that_capitalize_nouns_have_no_names_to_go_by():
    assert changed_names("Der Hund sah das Haus.", "Der Kater sah das Schiff.", "de").amount == 0
    assert changed_names("رأى الرجل البيت في القاهرة", "رأى", "ar").amount == 0
