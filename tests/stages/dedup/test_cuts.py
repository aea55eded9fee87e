import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.word_hashes import snap, words
from stages.dedup.cuts import apply_cuts

TEXTS = st.text(st.sampled_from("ab é日,.\n\n  "), max_size=40)


def span_of(text: str, part: str) -> tuple[int, int]:
    start = text.encode().index(part.encode())
    return start, start + len(part.encode())


@pytest.mark.parametrize(
    ("text", "cut", "left"),
    [
        ("one\n\ntwo\n\nthree", "two", "one\n\nthree"),
        ("one\n\ntwo\n\nthree\n", "one", "two\n\nthree\n"),
        ("one\n\ntwo\n\nthree\n", "three", "one\n\ntwo"),
        ("one\ntwo\n    three", "two", "one\n    three"),
        ("one two three", "two", "one three"),
        ("one two", " ", "one two"),
        ("café noir, crème", "noir", "café , crème"),
        ("it ends.\n\nNext para", "ends.\n\nNext", "it\n\npara"),
        ("it ends\nhere now", "ends\nhere", "it\nnow"),
        ("whole", "whole", ""),
    ],
)
def test_what_remains_is_joined_as_a_reader_would(text, cut, left):
    assert apply_cuts(text, [span_of(text, cut)]) == left


def test_cuts_with_only_white_space_between_them_are_one():
    text = "a\n\nb\n\nc\n\nd"
    assert apply_cuts(text, [span_of(text, "b"), span_of(text, "c")]) == "a\n\nd"
    assert apply_cuts(text, [span_of(text, "a"), span_of(text, "b")]) == "c\n\nd"
    assert apply_cuts(text, [(3, 7), (4, 5), (6, 10)]) == "a"
    assert apply_cuts(text, []) == text


@given(TEXTS, st.data())
def test_nothing_but_the_spans_goes_and_no_words_are_glued(text, data):
    borders = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    spans = [(a, b) for a, b in zip(borders[::2], borders[1::2], strict=False) if a < b]
    cut = set().union(*(range(a, b) for a, b in spans))
    result = apply_cuts(text, [(len(text[:a].encode()), len(text[:b].encode())) for a, b in spans])
    kept = "".join(" " if place in cut else character for place, character in enumerate(text))
    assert re.findall(r"\w+", result) == re.findall(r"\w+", kept)
    assert result.split() == kept.split() or "".join(result.split()) == "".join(kept.split())
    longest = max(map(len, re.findall(r"\n[\s]*", text)), default=0)
    assert max(map(len, re.findall(r"\n[\s]*", result)), default=0) <= max(2, longest)


@given(st.text(st.sampled_from("ab é日“.\n ")), st.data())
def test_a_snapped_span_breaks_no_word_and_no_character_and_does_not_grow(text, data):
    raw = text.encode()
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(raw))] * 2)))
    array = np.frombuffer(raw, dtype=np.uint8)
    spelled = words(array)
    new_start, new_end = snap(array, spelled.starts, spelled.ends, start, end)
    assert start <= new_start
    assert new_end <= end
    for border in (new_start, new_end):
        raw[:border].decode()
        assert not any(a < border < b for a, b in zip(spelled.starts, spelled.ends, strict=True))
    within = [(a, b) for a, b in zip(spelled.starts, spelled.ends, strict=True) if start <= a and b <= end]
    assert all(new_start <= a and b <= new_end for a, b in within), "whole words inside stay inside"
