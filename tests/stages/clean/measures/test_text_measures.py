import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.clean.measures.character_classes import BULLETS, CLASSES, DIGIT, LETTER, LOWER, SPACE, SYMBOL, UPPER
from stages.clean.measures.repetition import NGRAMS
from stages.clean.measures.stop_words import STOP_WORDS
from stages.clean.measures.text_measures import TextMeasures
from stages.clean.measures.text_scan import Count, Line
from tests.stages.clean.measures import gopher_reference as reference

# Few different words, so that n-grams repeat; characters of one to four bytes; every kind of white space and end.
WORDS = [
    "the",
    "The",
    "of",
    "cat",
    "Cat.",
    "naïve",
    "日本",
    "𝔘𝔫",
    "--",
    "…",
    "#1",
    "(x",
    "e.g.",
    "end!”",
    "42",
    "www.a.b",
]
texts = st.lists(st.sampled_from([*WORDS, "\n", "\n", "\n\n", "  ", "\u00a0", "\t", "\n \n"]), max_size=120).map(
    " ".join
)
any_text = st.one_of(texts, st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0x0DFF)))


@given(any_text)
def test_counts_over_the_whole_text(text):
    measures = TextMeasures.of(text)
    words = reference.words(text)
    counts = measures.counts
    assert measures.words == len(words)
    assert measures.word_characters.tolist() == list(map(len, words))
    assert counts[Count.CHARACTERS] == len(text)
    assert counts[Count.LINE_FEEDS] == text.count("\n")
    assert counts[Count.HASHES] == text.count("#")
    assert counts[Count.ELLIPSES] == text.count("...") + text.count("…")
    assert counts[Count.BRACES] == text.count("{")
    assert counts[Count.BRACKETS] == sum(map(text.count, "()[]{}"))
    assert counts[Count.SPACES] == sum(map(str.isspace, text))
    assert counts[Count.DIGITS] == sum(map(str.isdecimal, text))
    assert counts[Count.LETTERS_AND_DIGITS] == sum(one.isalpha() or one.isdecimal() for one in text)
    assert counts[Count.ALPHABETIC_WORDS] == sum(any(map(str.isalpha, word)) for word in words)
    plain = [word for word in words if any(unicodedata.category(one)[0] not in "PSC" for one in word)]
    assert (counts[Count.PLAIN_WORDS], counts[Count.PLAIN_CHARACTERS]) == (len(plain), sum(map(len, plain)))
    known = [word for word in map(str.lower, words) if word in STOP_WORDS]
    assert (counts[Count.STOP_WORDS], counts[Count.DISTINCT_STOP_WORDS]) == (len(known), len(set(known)))
    addresses = [word for word in words if re.match(r"(https?:/|www\.)", word) and len(word.encode()) > 4]
    assert counts[Count.URL_CHARACTERS] == sum(map(len, addresses))


@given(any_text)
def test_lines(text):
    measures = TextMeasures.of(text)
    lines = reference.lines(text)
    data = text.encode()
    table = measures.lines
    assert [data[start:end].decode() for start, end in table[:, [Line.START, Line.END]].tolist()] == lines
    whole = [data[begin:stop].decode() for begin, stop in table[:, [Line.BEGIN, Line.STOP]].tolist()]
    assert whole == [line for line in re.findall(r"[^\n]*\n|[^\n]+", text) if line.strip()]
    assert table[:, Line.CHARACTERS].tolist() == list(map(len, lines))
    assert table[:, Line.OFFSET].tolist() == [len(data[:start].decode()) for start in table[:, Line.START].tolist()]
    assert table[:, Line.WORDS].tolist() == [len(reference.words(line)) for line in lines]
    assert table[:, Line.LONGEST_WORD].tolist() == [max(map(len, reference.words(line))) for line in lines]
    assert table[:, Line.LETTERS].tolist() == [sum(map(str.isalpha, line)) for line in lines]
    assert table[:, Line.UPPER].tolist() == [sum(unicodedata.category(one) == "Lu" for one in line) for line in lines]
    assert table[:, Line.DIGITS].tolist() == [sum(map(str.isdecimal, line)) for line in lines]
    assert table[:, Line.BULLET].tolist() == [line.startswith(tuple(BULLETS)) for line in lines]
    assert table[:, Line.ELLIPSIS].tolist() == [line.endswith(("...", "…")) for line in lines]
    for line, mark in zip(lines, table[:, Line.END_MARK].tolist(), strict=True):
        assert mark or not line.endswith(tuple(".?!\"'")) or line.endswith("...")
    assert len(set(zip(lines, measures.line_hashes.tolist(), strict=True))) == len(set(lines))
    assert len(set(measures.line_hashes.tolist())) == len(set(lines))


@given(texts)
def test_repetition_equals_the_reference(text):
    measures = TextMeasures.of(text)
    duplicates = measures.duplicates
    size = max(len(text), 1)
    lines, paragraphs = reference.lines(text), reference.paragraphs(text)
    assert duplicates.paragraphs == len(paragraphs)
    assert (duplicates.duplicate_lines / max(duplicates.lines, 1), duplicates.line_characters / size) == pytest.approx(
        reference.share_of_duplicates(lines, size)
    )
    share, _ = reference.share_of_duplicates(paragraphs, size)
    assert duplicates.duplicate_paragraphs / max(duplicates.paragraphs, 1) == pytest.approx(share)
    for n, score in zip(NGRAMS, measures.ngrams, strict=True):
        expected = reference.top_ngram(text, n) if n <= 4 else reference.repeated_ngrams(text, n)
        assert score == pytest.approx(expected), n


def test_characters_of_a_repeated_paragraph_are_those_from_its_first_letter_to_its_last():
    paragraph = "one line\n  and another"
    measures = TextMeasures.of(f"{paragraph}\n\nbetween\n\n  {paragraph}  \n")
    assert measures.duplicates.duplicate_paragraphs == 1
    assert measures.duplicates.paragraph_characters == len(paragraph)


@pytest.mark.parametrize(
    ("line", "sentences"),
    [
        ("One.", 1),
        ("One. Two", 2),
        ("One. two", 1),
        ("See e.g. this one.", 1),
        ("He said “Go!” Then he went.", 2),
        ("Version 3.11 is out", 1),
        ("Really?! Yes.", 2),
        ("(A first.) A second.", 2),
        ("一。二。", 2),
        ("「一。」二！？三", 3),
        ("यह है। वह है।", 2),
        ("No mark at all", 1),
    ],
)
def test_sentences(line, sentences):
    assert TextMeasures.of(line).lines[:, Line.SENTENCES].tolist() == [sentences]


@pytest.mark.parametrize(
    ("line", "mark", "ellipsis"),
    [
        ("It ends.", 1, 0), ("It does not", 0, 0), ("It trails...", 0, 1),
        ("It trails…", 0, 1), ("“So!”", 1, 0), ("he said “so”", 0, 0),
        ("“So„ sagt er.“", 1, 0), ("终于。", 1, 0), ("「终于。」", 1, 0),
        ("终于", 0, 0), ("终于……", 0, 1), ("それは。。。", 0, 1), ("それは・・・", 0, 1),
        ("यह है।", 1, 0), ("ما هذا؟", 1, 0), ("یہ ہے۔", 1, 0),
        ("នេះ។", 1, 0), ("ဖြစ်သည်။", 1, 0), ("ཡིན།", 1, 0),
        ("เขามาถึงแล้ว", 1, 0), ("ราคา ๕๐", 0, 0), ("ລາວມາແລ້ວ", 1, 0),
        ("ነው።", 1, 0),
    ],
)  # fmt: skip
def test_lines_end_in_the_marks_of_their_script(line, mark, ellipsis):
    row = TextMeasures.of(line).lines[0]
    assert (row[Line.END_MARK], row[Line.ELLIPSIS]) == (mark, ellipsis)


def test_classes_are_those_of_python():
    for point in [*range(0x3000), 0x4E2D, 0xAC00, 0xFF01, 0x1D400, 0x1F600, 0x20000]:
        bits, character = CLASSES[point], chr(point)
        assert bool(bits & LETTER) == character.isalpha()
        assert bool(bits & SPACE) == character.isspace()
        assert bool(bits & DIGIT) == character.isdecimal()
        assert bool(bits & UPPER) == (unicodedata.category(character) == "Lu")
        assert bool(bits & LOWER) == (unicodedata.category(character) == "Ll")
        assert bool(bits & SYMBOL) == (unicodedata.category(character)[0] in "PSC")


def test_lines_that_differ_in_inner_white_space_differ():
    assert TextMeasures.of("a b\nab\na  b\na\u00a0b\n a b ").duplicates.duplicate_lines == 1


def test_a_text_without_words():
    for text in ("", "\n", " \u00a0\n"):
        measures = TextMeasures.of(text)
        assert measures.words == len(measures.lines) == 0
        assert measures.ngrams == (0.0,) * len(NGRAMS)
        assert measures.line_share(Line.BULLET) == 0
        assert np.array_equal(measures.counts[: Count.LINE_FEEDS], [len(text)])
