"""Sentences, syllables and long words of documents, in one compiled pass over their words.

- `sentence_measures`

A sentence ends at `.`, `!`, `?`, `…` or a danda with white space after it, unless a small letter of ASCII follows
("e.g. this"), at an empty line, and at the end of the text. Syllables are groups of vowels of Latin and Greek letters
and single vowels of Cyrillic ones, without the silent e at the end of an English word (that of `table` counts, as its l
is a syllable).
"""

import unicodedata

import numpy as np
import numpy.typing as npt

from stages.common.compiled import compiled
from stages.common.word_hashes import Bytes, Positions
from stages.profile.words.document_words import DocumentWords

LONG_WORD = 6
"""A word of more letters is long (Björnsson 1968)."""
_VOWELS = "aeiouyæøœαεηιουωаеёиоуыэюяіїєў"
_LAST = 0x530


def _vowel_table() -> npt.NDArray[np.bool_]:
    table = np.zeros(_LAST, dtype=np.bool_)
    for point in range(_LAST):
        base = unicodedata.normalize("NFD", chr(point))[0].casefold()
        table[point] = base in _VOWELS
    return table


VOWELS = _vowel_table()


def sentence_measures(
    found: DocumentWords, is_english: npt.NDArray[np.bool_]
) -> tuple[Positions, Positions, Positions]:
    """Sentences, syllables, and words of more than `LONG_WORD` letters of each document, (documents,) int64 each.

    Args:
        found: the documents' words.
        is_english: (documents,) bool, documents whose words may end in a silent e.
    """
    columns = [np.zeros(len(found.borders) - 1, dtype=np.int64) for _ in range(3)]
    _measure(found.data, found.texts, found.starts, found.ends, found.borders, is_english, VOWELS, *columns)
    return columns[0], columns[1], columns[2]


@compiled
def _measure(
    data: Bytes,
    texts: Positions,
    starts: Positions,
    ends: Positions,
    borders: Positions,
    is_english: npt.NDArray[np.bool_],
    vowels: npt.NDArray[np.bool_],
    sentences: Positions,
    syllables: Positions,
    long_words: Positions,
) -> None:
    for number in range(len(borders) - 1):
        for word in range(borders[number], borders[number + 1]):
            letters, groups = _syllables(data, starts[word], ends[word], is_english[number], vowels)
            syllables[number] += groups
            long_words[number] += 1 if letters > LONG_WORD else 0
            if word + 1 == borders[number + 1] or _ends_sentence(data, ends[word], starts[word + 1]):
                sentences[number] += 1


@compiled
def _syllables(data: Bytes, start: int, end: int, is_english: bool, vowels: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Letters and syllables of a word; at least one syllable."""
    letters, groups, position = 0, 0, start
    was_vowel, before = False, False
    while position < end:
        byte = np.int64(data[position])
        width = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        point = byte
        if width == 2 and position + 1 < end:
            point = (byte & 0x1F) << 6 | (np.int64(data[position + 1]) & 0x3F)
        elif width > 2:
            point = np.int64(0x10000)
        is_vowel = bool(point < len(vowels) and vowels[point])
        groups += 1 if is_vowel and (point >= 0x400 or not was_vowel) else 0
        before, was_vowel = was_vowel, is_vowel
        letters += 1
        position += width
    if is_english and groups > 1 and data[end - 1] | 0x20 == 0x65 and not before:
        syllabic_l = letters > 2 and data[end - 2] | 0x20 == 0x6C and not vowels[data[end - 3] & 0x7F]
        groups -= 0 if syllabic_l else 1
    return letters, max(1, groups)


@compiled
def _ends_sentence(data: Bytes, begin: int, end: int) -> bool:
    """True if the characters between two words end a sentence."""
    marked, feeds, spaced = False, 0, False
    for position in range(begin, end):
        byte = data[position]
        ellipsis = byte == 0xA6 and position >= begin + 2 and data[position - 1] == 0x80 and data[position - 2] == 0xE2
        danda = byte == 0xA4 and position >= begin + 2 and data[position - 1] == 0xA5 and data[position - 2] == 0xE0
        if byte == 0x2E or byte == 0x21 or byte == 0x3F or ellipsis or danda:
            marked, spaced = True, False
        elif byte == 0x20 or 0x09 <= byte <= 0x0D:
            spaced = True
            feeds += 1 if byte == 0x0A else 0
    return bool(feeds > 1 or (marked and spaced and not 0x61 <= data[end] <= 0x7A))
