"""Words and n-grams found in bytes are those that a regular expression or `str.split` finds in the text."""

import itertools
import re

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from stages.common.word_hashes import LETTERS_AND_DIGITS, SPACED, ngram_hashes, text_columns, words

TEXTS = st.text(st.sampled_from("aB c.,-\n\t é’日本。\u00a0\u2003\u3000\u1680\x1c\x00ß😀"), max_size=60) | st.text()


def as_bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8)


def spelled(text: str, table: np.ndarray) -> list[str]:
    data = as_bytes(text)
    _, starts, ends = words(data, table)
    return [data[start:end].tobytes().decode() for start, end in zip(starts, ends, strict=True)]


@given(TEXTS)
def test_spaced_words_are_those_of_split(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert spelled(text, SPACED) == text.split()


@given(TEXTS)
def test_words_of_letters_and_digits_are_those_of_a_regular_expression(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    alone, joined = "[\u3040-\u9fff]", "[0-9A-Za-z\u00c0-\u1fff\ua000-\U0010ffff]+"
    assert spelled(text, LETTERS_AND_DIGITS) == re.findall(f"{alone}|{joined}", text)


def test_punctuation_and_case_do_not_count() -> None:
    first, second = words(as_bytes("Don’t PANIC, “ever”!")), words(as_bytes("don't panic -- ever"))
    assert first.hashes.tolist() == second.hashes.tolist()
    assert len(set(words(as_bytes("a b ab ba aa")).hashes.tolist())) == 5


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 14))
def test_equal_ngrams_have_equal_hashes_and_different_ones_different(letters: list[str], n: int) -> None:
    hashes = ngram_hashes(words(as_bytes(" ".join(letters))).hashes, n).tolist()
    ngrams = [tuple(letters[start : start + n]) for start in range(len(letters) - n + 1)]
    assert len(hashes) == len(ngrams)
    assert len(set(hashes)) == len(set(ngrams)) == len(set(zip(hashes, ngrams, strict=True)))


def test_a_column_is_read_without_copying_whatever_its_chunks_and_offset() -> None:
    column = pa.chunked_array([["not this"], ["été", "", "two words"]]).slice(1)
    data, offsets = text_columns(column)
    assert [bytes(data[a:b]).decode() for a, b in itertools.pairwise(offsets)] == ["été", "", "two words"]
    assert text_columns(pa.array([], pa.string()))[1].tolist() == [0]
