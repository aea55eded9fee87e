"""Words found in bytes are those of `str.split` and of Unicode's categories; scripts without spaces have units."""

import itertools
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.word_classes import INVISIBLE, LETTERS_AND_DIGITS, SPACED
from stages.common.word_hashes import ngram_hashes, text_columns, words

WITH_SPACES = "aB c.,-\n\t é’ЖДёΣς।है؟سل한글\u00a0\u2003\u3000\u1680\x1c\x00ß😀²"
WITHOUT_SPACES = "日本のー。เกี่ะໃລ໊ខ្មែရန််ြ་བོ፡ꦗ𠀀"
HIDDEN = "\u00ad\u200b\u200c\u200d\u2060\ufe0f\U000e0020"


def as_bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8)


def spelled(text: str, table: np.ndarray) -> list[str]:
    data = as_bytes(text)
    _, starts, ends = words(data, table)
    return [data[start:end].tobytes().decode() for start, end in zip(starts, ends, strict=True)]


@given(st.text(st.sampled_from(WITH_SPACES), max_size=60))
def test_words_of_scripts_with_spaces_are_those_of_split_and_runs_of_letters_marks_and_digits(text: str) -> None:
    assert spelled(text, SPACED) == text.split()
    runs = itertools.groupby(text, lambda character: unicodedata.category(character)[0] in "LMN")
    assert spelled(text, LETTERS_AND_DIGITS) == ["".join(run) for is_word, run in runs if is_word]


@given(st.text(st.sampled_from(WITH_SPACES + WITHOUT_SPACES), max_size=60) | st.text())
def test_words_cover_each_character_once_and_hidden_characters_change_nothing(text: str) -> None:
    text = "".join(text.encode("utf-8", "replace").decode().split("\0"))
    assert "".join(spelled(text, SPACED)) == "".join(text.split())
    visible = "".join(one for one in text if not any(first <= ord(one) <= last for first, last in INVISIBLE))
    for table in (SPACED, LETTERS_AND_DIGITS):
        hidden = "".join(one + HIDDEN[position % len(HIDDEN)] for position, one in enumerate(visible))
        expected = words(as_bytes(visible), table)
        found = words(as_bytes(hidden), table).hashes.tolist()
        assert len(expected.hashes) <= len(as_bytes(visible)) // 2 + 1
        assert found == expected.hashes.tolist() or table is SPACED  # there, a hidden character alone is a word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天，天气很好。iPhone手机", "今 天 天 气 很 好 iPhone 手 机"),
        ("日本語のテキスト", "日 本 語 の テ キ ス ト"),
        ("เรื่องน้ำท่วมและ ปี2565ครับ", "เรื่ อ ง น้ำ ท่ ว ม และ ปี 2565 ค รั บ"),
        ("ຂ້ອຍຮັກພາສາລາວ", "ຂ້ ອ ຍ ຮັ ກ ພາ ສາ ລາ ວ"),
        ("ខ្ញុំស្រឡាញ់ភាសាខ្មែរ។", "ខ្ញុំ ស្រ ឡា ញ់ ភា សា ខ្មែ រ"),
        ("မြန်မာဘာသာစကား", "မြ န် မာ ဘာ သာ စ ကား"),
        ("བོད་སྐད་ཡིན།", "བོད སྐད ཡིན"),
        ("यह हिन्दी है।", "यह हिन्दी है"),
        ("ما هذا؟ كتاب، قديم", "ما هذا كتاب قديم"),
        ("ሰላም፡ዓለም።", "ሰላም ዓለም"),
        ("한국어 문장입니다.", "한국어 문장입니다"),
    ],
)
def test_every_script_has_words(text: str, expected: str) -> None:
    assert spelled(text, LETTERS_AND_DIGITS) == expected.split()
    without = [word for word in spelled(text, SPACED) if any(map(str.isalnum, word))]
    assert len(without) == len(expected.split())  # the same words, punctuation attached


def test_case_is_folded_in_every_script() -> None:
    for upper, lower in [("ÉTÉ", "été"), ("ЖИЗНЬ", "жизнь"), ("ΣΟΦΟΣ", "σοφος"), ("ΣΟΦΟΣ", "σοφος"[:-1] + "ς")]:
        assert words(as_bytes(upper)).hashes.tolist() == words(as_bytes(lower)).hashes.tolist()


@pytest.mark.parametrize(
    ("pointed", "plain"),
    [
        ("كِتَابٌ جَدِيدٌ", "كتاب جديد"),
        ("كتـــاب جــديد", "كتاب جديد"),
        ("שָׁלוֹם עֲלֵיכֶם", "שלום עליכם"),
        ("ذٰلِكَ ٱلْكِتَـٰبُ", "ذلك ٱلكتب"),
    ],
)
def test_vowel_signs_and_tatweel_do_not_count(pointed: str, plain: str) -> None:
    for table in (SPACED, LETTERS_AND_DIGITS):
        assert words(as_bytes(pointed), table).hashes.tolist() == words(as_bytes(plain), table).hashes.tolist()
    assert words(as_bytes("مؤمن")).hashes.tolist() != words(as_bytes("مومن")).hashes.tolist()


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
