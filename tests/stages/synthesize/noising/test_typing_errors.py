"""Errors of typists and scanners."""

from hypothesis import given
from hypothesis import strategies as st

from stages.synthesize.method import Failure
from stages.synthesize.noising.typing_errors import CONFUSIONS, NEIGHBORS, keyboard, ocr
from stages.synthesize.text.words import word_spans


def test_neighbors_are_those_of_the_keys():
    assert sorted(NEIGHBORS["s"]) == list("adewxz")
    assert sorted(NEIGHBORS["q"]) == list("aw") and sorted(NEIGHBORS["p"]) == list("lo")
    assert all(key in NEIGHBORS[other] for key in NEIGHBORS for other in NEIGHBORS[key]), "symmetric"
    assert all(key in "abcdefghijklmnopqrstuvwxyz" for key in NEIGHBORS) and len(NEIGHBORS) == 26


def test_a_letter_in_three_of_every_word_drawn_and_facts_never():
    text = "heavy stones of Mill Lane cost $1,000 in C:\\temp"
    output = keyboard(text, 4, word_rate=1, letter_rate=0.3, min_letters=4)
    before, after = text.split(" "), output.split(" ")
    assert [x for x, y in zip(before, after, strict=True) if x == y] == [
        "of",
        "Mill",
        "Lane",
        "$1,000",
        "in",
        "C:\\temp",
    ]
    for x, y in zip(before[:2], after[:2], strict=True):
        assert len(x) == len(y) and 1 <= sum(a != b for a, b in zip(x, y, strict=True)) <= 2
        assert all(a == b or b in NEIGHBORS[a] for a, b in zip(x, y, strict=True))
    assert keyboard("slow. Slow", 1, 1, 0.25, 4).split(". ")[1][0].isupper()


def test_letters_are_misread_as_what_they_look_like():
    assert ocr("dz", 0, word_rate=1, letter_rate=1) == "cl2"
    assert ocr("m", 1, 1, 1) in ("rn", "nn") and ocr("clt", 1, 1, 1)[0] == "d"
    assert isinstance(ocr("Ann 12", 0, 1, 1), Failure) and isinstance(keyboard("to be", 0, 1, 1, 4), Failure)


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("abc de.\n"), max_size=80), st.integers(0, 2**63))
def test_only_words_change(text, seed):
    for output in (keyboard(text, seed, 0.5, 0.5, 1), ocr(text, seed, 0.5, 0.5)):
        if isinstance(output, str):
            assert between(output) == between(text)
    assert all(key != other for key, others in CONFUSIONS.items() for other in others)


def between(text):
    ends = [0, *(end for _, end in word_spans(text))]
    return [
        text[end:start] for end, start in zip(ends, [*(start for start, _ in word_spans(text)), len(text)], strict=True)
    ]
