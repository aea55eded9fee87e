"""One compiled pass over a text's UTF-8 bytes that measures its words and lines.

- `scan`: fills in the arrays of `text_measures.TextMeasures`
- `Line`, `Count`: columns of the table of lines, indices of the counts over the whole text
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from stages.clean.measures.character_classes import (
    BULLET,
    CLOSING,
    DIGIT,
    LETTER,
    LOWER,
    SPACE,
    SYMBOL,
    TERMINAL,
    UPPER,
    code_point,
    width_at,
)
from stages.clean.measures.stop_words import STOP_WORDS
from stages.common.compiled import compiled
from stages.common.word_classes import SPACED
from stages.common.word_hashes import PRIME, Bytes, Hashes, Positions, Words, mix, words

Table = npt.NDArray[np.int64]


class Line(IntEnum):
    """Columns of the table of lines."""

    BEGIN = 0
    """Offset of its first byte, white space included."""
    START = 1
    """Offset of the first byte that is not white space."""
    END = 2
    """Offset after the last byte that is not white space."""
    STOP = 3
    """Offset after its line feed."""
    OFFSET = 4
    """Characters of the text that precede START."""
    CHARACTERS = 5
    WORDS = 6
    LONGEST_WORD = 7
    """In characters."""
    LETTERS = 8
    UPPER = 9
    DIGITS = 10
    SENTENCES = 11
    BULLET = 12
    """1 if it begins with a bullet."""
    ELLIPSIS = 13
    """1 if it ends in an ellipsis."""
    TERMINAL = 14
    """1 if it ends in terminal punctuation."""
    END_MARK = 15
    """1 if it ends in one of C4's marks (`. ? ! " '`), in terminal punctuation of another script, or in a closing quote
    or bracket after that, but not in an ellipsis; also if it ends in a letter of Thai or Lao, which have no marks."""
    PARAGRAPH = 16
    """Index of its paragraph."""


class Count(IntEnum):
    """Indices of the counts over the whole text."""

    CHARACTERS = 0
    LINE_FEEDS = 1
    HASHES = 2
    ELLIPSES = 3
    BRACES = 4
    """Opening curly brackets."""
    LETTERS_AND_DIGITS = 5
    DIGITS = 6
    SPACES = 7
    BRACKETS = 8
    """Round, square and curly."""
    ALPHABETIC_WORDS = 9
    """With at least one letter."""
    PLAIN_WORDS = 10
    """With at least one character that is neither punctuation nor a symbol."""
    PLAIN_CHARACTERS = 11
    """Characters of the plain words."""
    STOP_WORDS = 12
    DISTINCT_STOP_WORDS = 13
    URL_CHARACTERS = 14
    """Characters of words that begin with http://, https:// or www."""


_STOP_WORD_HASHES = np.concatenate(
    [words(np.frombuffer(word.encode(), dtype=np.uint8), SPACED)[0] for word in STOP_WORDS]
)
_LONGEST_STOP_WORD = max(map(len, STOP_WORDS))
_INSIDE, _AFTER_MARK, _AFTER_SPACE, _AFTER_FULL_MARK = 1, 2, 3, 4
"""State of a sentence: in its words, after its end mark, after the white space that follows, after an end mark of a
script in which none follows; 0 is before it begins."""
# Compiled code reads plain integers faster than members of an enumeration.
_ALPHABETIC_WORDS, _PLAIN_WORDS, _PLAIN_CHARACTERS = map(
    int, (Count.ALPHABETIC_WORDS, Count.PLAIN_WORDS, Count.PLAIN_CHARACTERS)
)
_CHARACTERS, _LINE_FEEDS, _HASHES, _ELLIPSES, _BRACES, _LETTERS_AND_DIGITS, _DIGITS, _SPACES, _BRACKETS = range(9)
_STOP_WORDS, _DISTINCT_STOP_WORDS, _URL_CHARACTERS = map(
    int, (Count.STOP_WORDS, Count.DISTINCT_STOP_WORDS, Count.URL_CHARACTERS)
)


@compiled
def scan(
    data: Bytes,
    split: Words,
    classes: npt.NDArray[np.uint16],
    word_characters: Positions,
    lines: Table,
    line_hashes: Hashes,
    counts: Table,
) -> int:
    """Fill in the last four arguments and return the number of lines.

    A single loop over characters that uses only local scalars: array views inside it would take ten times as long.
    """
    hashes, starts, ends = split
    line, word, paragraph, blank, position, characters, begin = 0, 0, 0, False, 0, 0, 0
    hash_marks, ellipses, braces, letters_and_digits, all_digits, spaces, brackets, dots = 0, 0, 0, 0, 0, 0, 0, 0
    start, end, offset, length, line_words, longest, letters, upper, digits = -1, 0, 0, 0, 0, 0, 0, 0, 0
    sentences, sentence, first_kind, last_kind = 0, 0, np.int64(0), np.int64(0)
    value, sealed = np.uint64(0), np.uint64(0)  # hash of the line so far, and up to its last nonspace character
    word_kinds, word_begin, plain = np.int64(0), 0, False
    while position < len(data):
        width = width_at(data, position)
        point = code_point(data, position, width)
        kind = np.int64(classes[point]) if point < len(classes) else np.int64(SYMBOL)
        dots = dots + 1 if point == 0x2E else 0
        if kind & SPACE:
            spaces += 1
            if sentence == _AFTER_MARK:
                sentence = _AFTER_SPACE
            value = value * PRIME + np.uint64(point) if start >= 0 else value
        else:
            if kind & (LETTER | DIGIT):
                letters_and_digits += 1
                letters += 1 if kind & LETTER else 0
                upper += 1 if kind & UPPER else 0
                digits += 1 if kind & DIGIT else 0
            elif kind & SYMBOL:
                hash_marks += 1 if point == 0x23 else 0
                braces += 1 if point == 0x7B else 0
                brackets += 1 if _is_bracket(point) else 0
                if dots == 3 or point == 0x2026 or point == 0x22EF or point == 0x2025:
                    ellipses += 1
                    dots = 0
            if start < 0:
                start, offset, first_kind = position, characters, kind
                paragraph += 1 if blank and line > 0 else 0
                blank = False
            for index in range(position, position + width):
                value = value * PRIME + np.uint64(data[index]) + np.uint64(1)
            end, length, last_kind, sealed = position + width, characters + 1 - offset, kind, value
            if sentence >= _AFTER_SPACE:
                begins = not kind & (LOWER if sentence == _AFTER_SPACE else TERMINAL | CLOSING)
                sentences += 1 if begins else 0
            sentence = _sentence_state(sentence, point, kind)
            if position == starts[word]:
                word_kinds, plain, word_begin = np.int64(0), False, characters
            word_kinds |= kind
            plain = plain or not kind & SYMBOL
            if end == ends[word]:
                size = characters + 1 - word_begin
                word_characters[word] = size
                longest = max(longest, size)
                line_words += 1
                if word_kinds & LETTER:
                    counts[_ALPHABETIC_WORDS] += 1
                if plain:
                    counts[_PLAIN_WORDS] += 1
                    counts[_PLAIN_CHARACTERS] += size
                word = min(word + 1, len(starts) - 1)
        position += width
        characters += 1
        if point == 0x0A or position == len(data):
            if start >= 0:
                line_hashes[line] = mix(sealed)
                ellipsis = _ends_in_ellipsis(data, start, end)
                marked = _ends_in_mark(data, start, end, classes)
                columns = (
                    begin, start, end, position, offset, length, line_words, longest, letters, upper, digits,
                    sentences + (1 if sentence else 0), 1 if first_kind & BULLET else 0, 1 if ellipsis else 0,
                    1 if last_kind & TERMINAL else 0, 1 if marked and not ellipsis else 0, paragraph,
                )  # fmt: skip
                for column in range(len(columns)):
                    lines[line, column] = columns[column]
                line += 1
            else:
                blank = True
            counts[_LINE_FEEDS] += 1 if point == 0x0A else 0
            all_digits += digits
            begin, start, line_words, longest, letters, upper, digits = position, -1, 0, 0, 0, 0, 0
            sentences, sentence, value = 0, 0, np.uint64(0)
    _count_known_words(data, hashes, starts, ends, word_characters, counts)
    counts[_CHARACTERS], counts[_HASHES], counts[_ELLIPSES], counts[_BRACES] = characters, hash_marks, ellipses, braces
    counts[_LETTERS_AND_DIGITS], counts[_DIGITS] = letters_and_digits, all_digits
    counts[_SPACES], counts[_BRACKETS] = spaces, brackets
    return line


@compiled
def _is_bracket(point: np.int64) -> bool:
    round_or_square = point == 0x28 or point == 0x29 or point == 0x5B or point == 0x5D
    return bool(round_or_square or point == 0x7B or point == 0x7D)


@compiled
def _sentence_state(state: int, point: np.int64, kind: np.int64) -> int:
    """A sentence ends at terminal punctuation, optional closing quotes or brackets, white space, and then anything but
    a lowercase letter ('e.g. this' is not an end)."""
    if kind & TERMINAL:
        return _AFTER_FULL_MARK if point >= 0x0E00 and not 0x2000 <= point < 0x3000 else _AFTER_MARK
    return state if state in (_AFTER_MARK, _AFTER_FULL_MARK) and kind & CLOSING else _INSIDE


@compiled
def _ends_in_ellipsis(data: Bytes, start: int, end: int) -> bool:
    """True for `...`, `…`, `‥`, `⋯`, `。。。` and `・・・`."""
    if end - start < 3:
        return False
    third, second, last = data[end - 3], data[end - 2], data[end - 1]
    if third != 0xE2 and third != 0xE3:
        return bool(third == 0x2E and second == 0x2E and last == 0x2E)
    if third == 0xE2:
        return bool((second == 0x80 and (last == 0xA6 or last == 0xA5)) or (second == 0x8B and last == 0xAF))
    stop = (second == 0x80 and last == 0x82) or (second == 0x83 and last == 0xBB)
    for offset in range(3, 9):
        stop = stop and end - offset > start and data[end - offset - 1] == data[end - offset % 3 - 1]
    return bool(stop)


@compiled
def _ends_in_mark(data: Bytes, start: int, end: int, classes: npt.NDArray[np.uint16]) -> bool:
    position = _last_character(data, start, end)
    point = code_point(data, position, end - position)
    if point < 0x80:
        return bool(point == 0x2E or point == 0x3F or point == 0x21 or point == 0x22 or point == 0x27)
    kind = np.int64(classes[point]) if point < len(classes) else 0
    if kind & CLOSING and position > start:
        end, position = position, _last_character(data, start, position)
        before = code_point(data, position, end - position)
        return bool(before < len(classes) and classes[before] & TERMINAL)
    return bool(kind & TERMINAL or (0x0E01 <= point <= 0x0EDF and not kind & (DIGIT | SYMBOL)))


@compiled
def _last_character(data: Bytes, start: int, end: int) -> int:
    """Offset of the last character before `end`."""
    position = end - 1
    while position > start and data[position] & 0xC0 == 0x80:
        position -= 1
    return position


@compiled
def _count_known_words(
    data: Bytes,
    hashes: Hashes,
    starts: Positions,
    ends: Positions,
    word_characters: Positions,
    counts: Table,
) -> None:
    """Count stop words by their hashes, and characters of web addresses by their prefixes."""
    seen = 0
    for word in range(len(hashes)):
        start, size = starts[word], ends[word] - starts[word]
        if size <= _LONGEST_STOP_WORD:
            for number in range(len(_STOP_WORD_HASHES)):
                if hashes[word] == _STOP_WORD_HASHES[number]:
                    counts[_STOP_WORDS] += 1
                    seen |= 1 << number
        elif data[start] == 0x68 and size > 7 and data[start + 1] == 0x74 and data[start + 2] == 0x74:
            secure = 1 if data[start + 4] == 0x73 else 0
            scheme = data[start + 3] == 0x70 and data[start + 4 + secure] == 0x3A and data[start + 5 + secure] == 0x2F
            counts[_URL_CHARACTERS] += word_characters[word] if scheme else 0
        elif data[start] == 0x77 and data[start + 1] == 0x77 and data[start + 2] == 0x77 and data[start + 3] == 0x2E:
            counts[_URL_CHARACTERS] += word_characters[word]
    while seen:
        counts[_DISTINCT_STOP_WORDS] += seen & 1
        seen >>= 1
