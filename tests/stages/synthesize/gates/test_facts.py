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
        ("1 000", "1000"),
        ("1\u2009234\u2009567 km", "1234567 km"),
        ("12,34,567", "1234567"),
        ("1.234,56", "1234.56"),
        ("12:30", "12:30"),
        ("3/4", "3/4"),
        ("1\u20442", "1/2"),
        ("½", "1/2"),
        ("2004-05-06", "2004-5-6"),
        ("v2.0.1", "2.0.1"),
        ("192.168.0.1", "192.168.0.1"),
        ("10²", "10^2"),
        ("10^2", "10^2"),
        ("10⁻³ m", "10^-3 m"),
        ("1E-5", "1e-5"),
        ("-5 °C", "-5 °C"),
        ("\u22125 °C", "-5 °C"),
        ("COVID-19", "19"),
        ("CO₂", "2"),
        ("5k", "5000"),
        ("$5b", "5E+9 $"),
        ("₩500", "500 ₩"),
        ("US$ 5", "5 $"),
        ("R$ 5", "5 R$"),
        ("USD 5", "5 $"),
        ("5 per cent", "5 %"),
        ("１２３", "123"),
        ("Ⅷ", "VIII"),
        ("1234567890123456789012345678901", "1234567890123456789012345678901"),
    ],
)
def test_a_number_has_one_form_for_one_meaning(written, fact):
    assert list(numbers(f"It was {written}, they said.")) == [fact]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("10² m", "102 m"), ("½ cup", "¾ cup"), ("-5 °C", "5 °C"), ("12:30", "30:12"), ("3/4", "4/3"),
        ("v2.0.1", "v2.01"),
        ("192.168.0.1", "192.1.680.1"), ("2004-05-06", "2004-06-05"), ("5k people", "5 people"), ("R$5", "$5"),
        ("USD 5", "EUR 5"), ("1234567890123456789012345678901", "1234567890123456789012345678902"), ("1 000", "1 0000"),
    ],
)  # fmt: skip
def test_another_number_is_noticed(before, after):
    assert changed_numbers(f"It was {before} then", f"It was {after} then").amount


def test_units_belong_to_the_number_that_they_are_next_to():
    assert sorted(numbers("5 USD 6 and 7 $8, Room B-52 with H₂O")) == ["2", "5", "52", "6 $", "7", "8 $"]


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


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("we met O’Brien", "we met O'Brien"), ("in Mu\u0308nchen", "in M\u00fcnchen"), ("in İstanbul", "in istanbul"),
        ("the ﬁlm by Ａda", "the film by Ada"),
    ],
)  # fmt: skip
def test_a_name_in_other_code_points_is_the_same(before, after):
    assert changed_names(before, after, "en").amount == changed_names(after, before, "en").amount == 0


def test_languages_that_capitalize_nouns_have_no_names_to_go_by():
    assert changed_names("Der Hund sah das Haus.", "Der Kater sah das Schiff.", "de").amount == 0
    assert changed_names("Der Hund sah das Haus.", "Der Kater sah es.", "de-AT").amount == 0
    assert changed_names("¿Quién? ¡Hola! «Sí»", "", "es").amount == 0
    assert changed_names("رأى الرجل البيت في القاهرة", "رأى", "ar").amount == 0
