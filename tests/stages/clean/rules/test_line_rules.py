import pytest

from stages.clean.measures.text_measures import TextMeasures
from stages.clean.rules.line_rules import apply_line_rules
from stages.clean.rules_config import LineRules

KEPT = "This line has words enough and a full stop."


def edited(text: str, *rules: str, **entries):
    table = LineRules.model_validate({**{rule: {"action": "drop"} for rule in rules}, **entries})
    return apply_line_rules(TextMeasures.of(text), table)


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        ("c4_longest_word", "x" * 1000, "x" * 1001),
        ("c4_end_mark", 'He said "so."', "He said so..."),
        ("c4_end_mark", "Is it?", "It is"),
        ("c4_words", "one two three", "one two"),
        ("c4_javascript", "java script", "Turn on JavaScript."),
        ("c4_policy", "the policy on privacy", "Our Privacy Policy is here."),
        ("c4_policy", "cookies are good to use", "By USE OF COOKIES we mean."),
        ("refinedweb_uppercase", "ABCabc", "ABCDabc"),
        ("refinedweb_digits", "1,234 a", "1,234 - 5"),
        ("refinedweb_counter", "3 likes came in", "3 likes"),
        ("refinedweb_counter", "about 3 likes", "1.2k Shares"),
        ("refinedweb_words", "two words", "word"),
        ("refinedweb_navigation", "He signed in", "Sign in or register"),
        ("refinedweb_navigation", "One may read more of it there", "The mill stands still… Read more…"),
        ("refinedweb_navigation", "sign in " + "word " * 9, "sign in " + "word " * 8),
        ("refinedweb_navigation", "an item in the cart", "You have 3 items in your cart"),
    ],
)
def test_each_rule_on_both_sides_of_its_default_limit(rule, inside, outside):
    text = f"{KEPT}\n\n{inside}\n{KEPT}"
    same = edited(text, rule)
    assert (same.measures.text, same.edits) == (text, {})
    taken = edited(f"{KEPT}\n\n{outside}\n{KEPT}", rule)
    assert (taken.measures.text, taken.edits) == (f"{KEPT}\n\n{KEPT}", {rule: 1})


def test_nothing_happens_by_default_and_the_text_is_not_measured_again():
    measures = TextMeasures.of("word\n3 likes\nSIGN IN")
    assert apply_line_rules(measures, LineRules()) == (measures, {}, 0.0)


def test_citation_marks_go_from_inside_lines():
    result = edited("A fact[12] and another[citation needed].[edit]\nplain [text]", "c4_citations")
    assert result.measures.text == "A fact and another.\nplain [text]"
    assert result.edits == {"c4_citations": 3}


def test_a_line_counts_for_the_first_rule_that_it_violates():
    assert edited(f"{KEPT}\nJAVASCRIPT", "c4_end_mark", "c4_words", "c4_javascript", "refinedweb_uppercase").edits == {
        "c4_end_mark": 1
    }


def test_the_share_of_words_counts_words_removed_by_refinedweb_only():
    text = "\n".join(["one two three four five six seven eight nine.", "WORD", "Two words"])
    assert edited(text, "refinedweb_words").removed_share == pytest.approx(1 / 12)
    assert edited(text, "refinedweb_words", "c4_end_mark").removed_share == 0
    assert edited(text, "c4_end_mark").edits == {"c4_end_mark": 2}


def test_removing_lines_leaves_tidy_text():
    text = f"menu\n\n\nmenu\n\n{KEPT}\n\nmenu\n\n\nmenu\n\n{KEPT}\n\n\nmenu"
    assert edited(text, "refinedweb_words").measures.text == f"{KEPT}\n\n\n{KEPT}"
    assert edited("menu\nmenu", "refinedweb_words").measures.text == ""


@pytest.mark.parametrize("line", ["", "--", "漢字。", "Слово.", "1"])
def test_lines_without_ascii_words_take_linear_time(line):
    """Minutes, when a pattern went on over the line's end: in bytes, letters beyond ASCII are no word."""
    rules = LineRules.model_validate({name: {"action": "drop"} for name in LineRules.model_fields})
    text = f"{line}\n" * 60_000 + "17 likes\nSign in\nA line of prose that stays in the text."
    edits = apply_line_rules(TextMeasures.of(text), rules)
    assert edits.measures.text.endswith("A line of prose that stays in the text.")
