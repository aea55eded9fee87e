"""Texts of words: equal exactly for words of equal hashes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.word_hashes import word_texts, words

ALPHABET = st.sampled_from("aAßẞİıéE\u0301Σσς \u00ad\u200dכָּ\u05b7تـَ水กำ😀1Ⅷ\U000e0041-")


def texts_of(text, **options):
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    found = words(data)
    return found.hashes.tolist(), word_texts(data, found.starts, found.ends, **options)


@given(st.text(ALPHABET, max_size=40), st.text(ALPHABET, max_size=40))
def test_words_have_the_same_text_exactly_if_they_have_the_same_hash(first, second):
    hashes, texts = (one + other for one, other in zip(texts_of(first), texts_of(second), strict=True))
    pairs = set(zip(hashes, texts, strict=True))
    assert len(pairs) == len(set(hashes)) == len(set(texts))


@pytest.mark.parametrize(
    ("text", "group", "expected"),
    [
        ("The MILL, the mill", 1, ["the", "mill", "the", "mill"]), ("The MILL, the mill", 2, ["the mill", "the mill"]),
        ("co\u00adoperate كِتَاب", 1, ["cooperate", "كتاب"]), ("水车 a", 3, ["水 车 a"]), ("", 1, []), ("...", 2, []),
        ("x" * 300, 1, ["x" * 100]), ("é" * 150 + " b", 2, ["é" * 100 + " b"]),
    ],
)  # fmt: skip
def test_texts_are_folded_cut_and_joined(text, group, expected):
    assert texts_of(text, group=group)[1] == expected
