"""Capitals, punctuation and words lost."""

from hypothesis import given
from hypothesis import strategies as st

from stages.synthesize.method import Failure
from stages.synthesize.noising.losses import drop_words, lose_case, lose_punctuation

TEXT = (
    'Dr. Ann\'s "well-known" mill (NASA) cost $1,000.50; see https://A.b/C-d.\r\n```\nCode, A.\n```\n\tÉcole, 今日は。'
)


def test_case():
    assert lose_case(TEXT, 0, rate=1) == (
        'dr. ann\'s "well-known" mill (nasa) cost $1,000.50; see https://A.b/C-d.\r\n'
        "```\nCode, A.\n```\n\técole, 今日は。"
    )
    assert isinstance(lose_case("a b", 0, rate=1e-9), Failure)


def test_punctuation():
    assert lose_punctuation(TEXT, 0, rate=1) == (
        "Dr Ann's well-known mill NASA cost $1,000.50; see https://A.b/C-d.\r\n```\nCode, A.\n```\n\tÉcole 今日は"
    )
    assert lose_punctuation("a, b, c", 0, 0.5) in (
        "a b, c",
        "a, b c",
        "a b c",
        Failure("no punctuation between words was drawn"),
    )


def test_words():
    assert drop_words("one of these. Ann", 0, 1, "_") == "one _ _. Ann"
    assert drop_words("so these are 5 of them. Ann", 0, 1, "") == "5 of. Ann"
    words = drop_words("word " * 10_000, 1, 0.1, "_").split()
    assert abs(words.count("_") - 1_000) < 150 and len(words) == 10_000


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("ab .,!\n`\"'"), max_size=80), st.integers(0, 999))
def test_lines_stay_and_only_marks_or_words_go(text, seed):
    for output in (lose_punctuation(text, seed, 0.5), drop_words(text, seed, 0.5, "")):
        if isinstance(output, str):
            characters = iter(text)
            assert all(character in characters for character in output), "a subsequence"
            assert [c for c in output if c in "\n\r\t"] == [c for c in text if c in "\n\r\t"]
