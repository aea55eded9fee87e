"""Swap and deletion of EDA."""

from hypothesis import given
from hypothesis import strategies as st

from stages.synthesize.augmentation.easy_data import delete, swap
from stages.synthesize.method import Failure
from stages.synthesize.text.words import sentences

TEXT = "the old mill by the river turned slowly all day\nits wheel, made of oak, needed 3 new paddles for Ann\n"
texts = st.text(st.characters(codec="utf-8") | st.sampled_from("ab .\n'水ก็"), max_size=120)


def words_of(text):
    return [[text[w.start : w.end] for w in s.words] for s in sentences(text)]


def test_swap_moves_the_words_of_each_sentence_and_nothing_else():
    output = swap(TEXT, 7, alpha=0.1)
    for before, after in zip(words_of(TEXT), words_of(output), strict=True):
        assert sorted(before) == sorted(after)
        assert 0 < sum(x != y for x, y in zip(before, after, strict=True)) <= 2  # one exchange for ten words
    assert words_of(output)[1][6] == "3" and words_of(output)[1][-1] == "Ann"
    assert output.endswith(" Ann\n") and output.count("\n") == 2 and output.count(",") == 2


def test_one_sentence_by_hand():
    assert swap("left right", 0, alpha=0.1) == "right left"
    assert swap("The mill. Then the\tend", 1, alpha=0.1) == "Mill the. Then end\tthe", "capitals stay at their position"
    assert delete("left right", 0, alpha=1) in ("left", "right")
    assert delete("3 of them", 0, alpha=1) == "3 of", "the number gets no other unit"


def test_deletion_removes_as_many_words_as_its_probability_says():
    text = "word " * 10_000
    left = len(delete(text, 3, alpha=0.1).split())
    assert abs(left - 9_000) < 150  # five standard deviations of 30


def test_what_cannot_be_changed_is_a_failure():
    assert isinstance(swap("alone", 0, 0.1), Failure)
    assert isinstance(swap("3 4 5 Ann", 0, 0.1), Failure)
    assert isinstance(delete("1 2 3", 0, 1.0), Failure)


@given(texts, st.integers(0, 2**63), st.floats(0.01, 1))
def test_swap_keeps_all_characters_and_delete_only_removes(text, seed, alpha):
    swapped = swap(text, seed, alpha)
    if isinstance(swapped, str):
        assert sorted(swapped.casefold()) == sorted(text.casefold())
        assert swapped == swap(text, seed, alpha)
    deleted = delete(text, seed, alpha)
    if isinstance(deleted, str):
        characters = iter(text)
        assert all(character in characters for character in deleted), "a subsequence of the text"
        assert deleted.count("\n") == text.count("\n")
