import pytest

from stages.clean.quality_filters import RULES, QualityThresholds, quality_verdict

LIMITS = QualityThresholds()
GOOD = [
    f"The reader number {number} of this sentence will have to look with care at what it says, and that is fine."
    for number in range(12)
]


def verdict(*lines: str, **limits) -> str | None:
    return quality_verdict("\n".join(lines), QualityThresholds(**limits))


def test_good_text_passes():
    assert verdict(*GOOD) is None


@pytest.mark.parametrize(
    ("rule", "just_inside", "just_outside", "limits"),
    [
        ("gopher_too_few_words", "the of " + "word " * 48, "the of " + "word " * 47, {}),
        ("gopher_too_many_words", "the of " + "word " * 58, "the of " + "word " * 59, {"max_words": 60}),
        ("gopher_word_length", "the of " + "a bcd " * 15 + "abcdefg " * 25, "the of " + "ab " * 60, {}),
        ("gopher_word_length", "the and " + "abcdefghij " * 60, "the and " + "abcdefghijk " * 60, {}),
        ("gopher_hashes", "the of " + "word " * 58 + "#" * 6, "the of " + "word " * 58 + "#" * 7, {}),
        ("gopher_ellipses", "the of " + "word... " * 5 + "word " * 53, "the of " + "word... " * 9 + "word " * 51, {}),
        ("gopher_bullet_lines", "\n".join(["- the of it word" + str(n) for n in range(18)] + GOOD[:2]),
         "\n".join(["- the of it word" + str(n) for n in range(20)] + GOOD[:2]), {}),
        ("gopher_ellipsis_lines", "\n".join([line + "..." for line in GOOD[:3]] + GOOD[3:]),
         "\n".join([line + "…" for line in GOOD[:4]] + GOOD[4:]), {}),
        ("gopher_alphabetic_words", "the of " + "word " * 46 + "123 " * 12, "the of " + "word " * 45 + "123 " * 13, {}),
        ("gopher_stop_words", "the of " + "word " * 60, "the the " + "word " * 60, {}),
        ("stop_word_share", "the of " + "wort " * 198, "the of " + "wort " * 199, {}),
    ],
)  # fmt: skip
def test_each_rule_on_both_sides_of_its_threshold(rule, just_inside, just_outside, limits):
    quiet = {"max_duplicate_lines": 1, "max_duplicate_paragraphs": 1, "max_duplicate_line_characters": 1,
             "max_duplicate_paragraph_characters": 1}  # fmt: skip
    assert verdict(just_inside, **quiet, **limits) is None
    assert verdict(just_outside, **quiet, **limits) == rule


def test_repeated_lines_and_paragraphs():
    few = {"max_duplicate_line_characters": 1, "max_duplicate_paragraph_characters": 1}
    assert verdict(*GOOD[:7], *GOOD[:3], **few) is None
    assert verdict(*GOOD[:6], *GOOD[:3], **few) == "gopher_duplicate_lines"
    blocks = [f"{one}\nends here {number}" for number, one in enumerate(GOOD)]
    assert quality_verdict(
        "\n\n".join([*blocks[:6], *blocks[:3]]), QualityThresholds(max_duplicate_lines=1, **few)
    ) == ("gopher_duplicate_paragraphs")
    long, short = "x" * 5 + " the of and " + "long line " * 60, "the end"
    assert verdict(long, *GOOD) is None
    assert (
        verdict(long, *GOOD[:10], long, short, max_duplicate_paragraph_characters=1)
        == "gopher_duplicate_line_characters"
    )


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "gopher_too_few_words"),
        (" \n ", "gopher_too_few_words"),
        ("…", "gopher_word_length"),
        ("\x00", "gopher_word_length"),
    ],
)
def test_texts_without_words_are_judged_and_do_not_crash(text, rule):
    assert quality_verdict(text, QualityThresholds(min_words=0)) == rule


def test_every_rule_has_a_name_that_says_where_it_is_from():
    assert [name for name in RULES if not name.startswith("gopher_")] == ["stop_word_share"]
