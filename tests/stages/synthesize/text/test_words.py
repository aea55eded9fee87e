"""Borders of words and sentences, and what is never changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.synthesize.text.words import Sentence, replaced, sentences, short_spans


def fixed(text):
    return [text[w.start : w.end] for s in sentences(text) for w in s.words if w.is_fixed]


def free(text):
    return [text[w.start : w.end] for s in sentences(text) for w in s.words if not w.is_fixed]


def split(text):
    return [text[s.start : s.end] for s in sentences(text)]


def test_sentences_end_at_marks_and_lines_but_not_at_abbreviations_or_numbers():
    text = 'Dr. Ann paid $3.50 to J. Smith. "Why?" asked he. e.g. this one!\r\n\r\n- an item\n'
    assert split(text) == ["Dr. Ann paid $3.50 to J. Smith.", '"Why?" asked he. e.g. this one!', "- an item"]


def test_sentences_of_scripts_without_spaces():
    assert split("今日は晴れです。明日は雨？「はい。」そう") == ["今日は晴れです。", "明日は雨？", "「はい。」", "そう"]
    assert free("今日は") == ["今", "日", "は"]
    assert split("هل هذا؟ نعم. لا") == ["هل هذا؟", "نعم.", "لا"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "it cost $1.13bn, or two million pounds and a pound of tea",
            ["1", "13bn", "two", "million", "pounds", "pound"],
        ),
        ("we saw Ada Lovelace in the U.S. and NASA", ["Ada", "Lovelace", "U", "S", "NASA"]),
        (
            "see https://a.example/x?y=z or mail ann@mill.example today",
            ["https", "a", "example", "x", "y", "z", "ann", "mill", "example"],
        ),
        ("call `swap words` on <b>bold</b> text", ["swap", "words", "b", "bold", "b"]),
        ("set max_items and maxItems in C:\\temp\\file", ["max", "items", "maxItems", "C", "temp", "file"]),
        ("plain words\n    x = call(words)\nmore words", ["x", "call", "words"]),
        ("text\n```\nplain words here\n```\nend", ["plain", "words", "here"]),
        ("| one | cell |\n|---|---|", ["one", "cell"]),
    ],
)
def test_facts_and_code_are_fixed(text, expected):
    assert fixed(text) == expected


def test_a_capital_at_the_start_of_a_sentence_makes_no_name_of_a_word_that_is_also_written_small():
    assert fixed("Mills turn. The mills of Ann turn, the rain ends. Ann sleeps.") == ["Ann", "Ann"]


def test_joined_words_are_one():
    assert free("don't re-enter the mother-in-law’s house -now- 'quoted'") == [
        "don't", "re-enter", "the", "mother-in-law’s", "house", "now", "quoted",
    ]  # fmt: skip


@given(st.text(st.characters(codec="utf-8") | st.sampled_from(" .!?\n\r。a1'-`<|한ท็"), max_size=200))
def test_words_are_in_order_within_their_sentences_and_on_one_line(text):
    end = 0
    for sentence in sentences(text):
        assert isinstance(sentence, Sentence) and sentence.start >= end
        assert "\n" not in text[sentence.start : sentence.end] and "\r" not in text[sentence.start : sentence.end]
        end = sentence.start
        for word in sentence.words:
            assert end <= word.start < word.end <= sentence.end
            assert not any(character.isspace() for character in text[word.start : word.end])
            end = word.end
        end = sentence.end
    assert not text[end:].strip()


@given(st.text(st.sampled_from("ab "), max_size=60), st.integers(1, 12))
def test_parts_of_a_long_sentence_are_short_and_leave_out_spaces_alone(text, limit):
    parts = list(short_spans(text, 0, len(text), limit))
    assert all(end - start <= limit for start, end in parts)
    assert "".join(text[start:end] for start, end in parts).replace(" ", "") == text.replace(" ", "")


def test_replaced_keeps_everything_else():
    assert replaced("a b c", [(0, 1, "x"), (4, 5, "")]) == "x b "
