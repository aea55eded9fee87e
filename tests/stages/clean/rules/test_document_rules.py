import re

import pytest

from stages.clean.measures.text_measures import TextMeasures
from stages.clean.rules.document_rules import SCORES, violations
from stages.clean.rules_config import Rules

GOOD = """The mill stands where the river turns, and for two hundred years its wheel has given the valley flour.
When the frost came early last winter, the miller's daughter opened the sluice by hand, a thing that nobody had done
since her grandfather's time. She says that the water knew the way.

Visitors ask about the stones. They were cut in France, carried by barge to the coast, then dragged up on sledges
behind eight oxen, which took most of one summer. Nothing else in this county weighs as much and still moves!"""
WORD_LIST = ["alpha", "bravo", "carol", "delta", "every", "fancy", "great", "house", "index", "joker"]


def filler(words: int, *, word: str = "abcd{}") -> str:
    """Different words of the same length, so that nothing repeats."""
    return " ".join(word.format(chr(97 + n % 26) + chr(97 + n // 26)) for n in range(words))


def score(rule: str, text: str) -> float:
    return SCORES[rule](TextMeasures.of(text))


def lines(good: int, bad: str, count: int) -> str:
    return "\n".join([*(f"Plain line {n} ends here." for n in range(good)), *(bad.format(n) for n in range(count))])


CASES = [
    ("gopher_words", filler(50), filler(49)),
    ("gopher_words", "ab " * 100_000, "ab " * 100_001),
    ("gopher_words", "-- " * 9 + filler(50), "-- " * 9 + filler(49)),
    ("gopher_mean_word_length", "abc " * 60, "abc " * 59 + "ab"),
    ("gopher_mean_word_length", "abcdefghij " * 60, "abcdefghij " * 59 + "abcdefghijk"),
    ("gopher_mean_word_length", "äöü " * 60, "äöü " * 59 + "äö"),
    ("gopher_hashes", filler(9) + " a#", filler(9) + " a##"),
    ("gopher_ellipses", filler(19) + " a... b…", filler(19) + " a... ...b…"),
    ("gopher_bullet_lines", lines(1, "- item {}", 9), lines(1, "• item {}", 10)),
    ("gopher_ellipsis_lines", lines(7, "and {}...", 3), lines(6, "and {}…", 3)),
    ("gopher_alphabetic_words", filler(8) + " 12 34", filler(7) + " 12 34"),
    ("gopher_stop_words", filler(9) + " the Of", filler(9) + " the The"),
    ("stop_word_share", filler(99) + " the", filler(100) + " the"),
    ("gopher_duplicate_lines", "a\nb\nc\nd\ne\nf\ng\na\nb\nc", "a\nb\nc\nd\ne\nf\na\nb\nc"),
    ("gopher_duplicate_paragraphs", "\n\n".join("abcdefgabc"), "\n\n".join("abcdefabc")),
    ("gopher_duplicate_line_characters", "aaaa\nbbbb\n\n\n\n\n\n\naaaa", "aaaa\nbbbb\n\n\n\n\n\naaaa"),
    ("gopher_duplicate_paragraph_characters", "aaaa\n\nbbbbbbb\n\n\naaaa", "aaaa\n\nbbbbbb\n\n\naaaa"),
    ("gopher_top_2_gram", "a b a b " + "x" * 22, "a b a b " + "x" * 21),
    ("gopher_top_3_gram", "a b c a b c " + "x" * 44, "a b c a b c " + "x" * 43),
    ("gopher_top_4_gram", "a b c d a b c d " + "x" * 72, "a b c d a b c d " + "x" * 71),
    *(
        (f"gopher_duplicate_{n}_grams", f"{gram} {gram} {'x' * fits}", f"{gram} {gram} {'x' * (fits - 1)}")
        for n, fits in ((5, 107), (6, 143), (7, 186), (8, 238), (9, 302), (10, 380))
        for gram in [" ".join(WORD_LIST[:n])]
    ),
    ("c4_lorem_ipsum", "Lorem, ipsum", "Lorem Ipsum dolor"),
    ("c4_curly_bracket", "a } b", "a { b"),
    ("c4_sentences", "A b. C d? E f! G h. I j", "A b. C d? E f! G h."),
    ("fineweb_punctuated_lines", lines(3, "no mark {}", 22), lines(3, "no mark {}", 23)),
    ("fineweb_short_lines", lines(0, "x" * 31, 33) + "\n" + lines(0, "y" * 30, 67),
     lines(0, "x" * 31, 32) + "\n" + lines(0, "y" * 30, 67)),
    ("fineweb_duplicate_line_characters", "ab\nab\n" + "x" * 196, "ab\nab\n" + "x" * 195),
    ("fineweb_line_feeds", filler(10) + "\n" * 3, filler(10) + "\n" * 4),
    ("nemo_symbols", "abc ", "ab, "),
    ("nemo_digits", "123" + "a" * 17, "123" + "a" * 16),
    ("nemo_urls", "https://a.b/cd" + " " + "x" * 55, "https://a.b/cd" + " " + "x" * 54),
    ("nemo_white_space", "abc ", "ab  "),
    ("nemo_brackets", "(" + "a" * 9, "[" + "a" * 8),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "inside", "outside"), CASES)
def test_each_rule_on_both_sides_of_its_default_limit(rule, inside, outside):
    entry = getattr(Rules(), rule)
    assert not entry.is_violated_by(score(rule, inside)), score(rule, inside)
    assert entry.is_violated_by(score(rule, outside)), score(rule, outside)


def test_every_measure_has_its_case_and_its_entry():
    assert {case[0] for case in CASES} == set(SCORES)
    assert set(Rules.model_fields) - set(SCORES) == {
        "refinedweb_removed_words", "language", "badwords", "quality", "perplexity"
    }  # fmt: skip


def test_every_rule_cites_its_source():
    for name, field in Rules.model_fields.items():
        source = re.search(r"Gopher|C4|FineWeb|RefinedWeb|NeMo", field.description or "")
        assert source or name in ("quality", "perplexity"), name


def verdicts(text: str, **rules) -> list[tuple[str, str]]:
    measures = TextMeasures.of(text)
    violated = violations(Rules.model_validate(rules), {name: lambda s=s: s(measures) for name, s in SCORES.items()})
    return [(violation.rule, violation.action) for violation in violated]


def test_good_text_violates_no_rule():
    assert verdicts(GOOD) == []


def test_a_rule_that_is_off_is_not_measured():
    def fail() -> float:
        raise AssertionError

    rules = Rules.model_validate({name: {"action": "off"} for name in Rules.model_fields})
    assert list(violations(rules, dict.fromkeys(Rules.model_fields, fail))) == []


def test_violated_rules_come_in_order_with_their_scores():
    measures = TextMeasures.of("{a} b")
    violated = list(violations(Rules(), {name: lambda s=s: s(measures) for name, s in SCORES.items()}))
    assert violated[0] == ("gopher_words", "drop", 2)
    assert ("c4_curly_bracket", "tag", 1) in violated
    assert [violation.rule for violation in violated] == [
        name for name in Rules.model_fields if name in {violation.rule for violation in violated}
    ]
