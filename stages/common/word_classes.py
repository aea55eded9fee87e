"""The definition of a word in every script: a table of character classes that compiled passes index by code point.

- `SPACED`, `LETTERS_AND_DIGITS`: class and case-folded code point of every character
- `INVISIBLE`: characters that words ignore; `clean` keeps those that carry meaning
- `OPTIONAL_MARKS`: vowel signs and extenders of Arabic and Hebrew, which words ignore too, as few texts have them

Scripts with spaces: a word is a run of letters, marks and digits. Scripts without: each ideograph and each kana is a
word; so is each orthographic cluster of Thai, Lao, Khmer, Burmese, Javanese, Balinese and the Tai scripts (a consonant
with its vowels on all sides, its tone, and the consonants stacked below it), and each syllable of Tibetan. These units
follow from the characters alone: no dictionary covers all of these languages, and around an edit a dictionary
segments unchanged text anew.

Clean measures words with the punctuation that is attached to them (`SPACED`, as the limits of its rules were set for
such words); near duplicates, decontamination and overlap compare the same words without it (`LETTERS_AND_DIGITS`).
"""

import unicodedata

import numpy as np
import numpy.typing as npt

WordTable = npt.NDArray[np.uint32]
"""(code points,) uint32: class << `FOLD_BITS`, plus the case-folded code point; 0 for a separator."""
FOLD_BITS = 21
SEPARATOR, LETTER, UNIT, PREFIX, MARK, STACKER, IGNORED, CLOSING = range(8)
"""SEPARATOR: between words. LETTER: part of a run. UNIT: begins a word of its own. PREFIX: vowel before its consonant.
MARK: joins what precedes it. STACKER: joins two consonants. IGNORED: invisible. CLOSING: ends a word."""
LAST_LISTED = 0x323AF
"""Last assigned code point (Unicode 15); those after it are letters but for the plane of tags and selectors."""

INVISIBLE = ((0xAD, 0xAD), (0x034F, 0x034F), (0x061C, 0x061C), (0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E),
             (0x2060, 0x206F), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xE0000, 0xE0FFF))  # fmt: skip
"""Soft hyphen, joiners, directions, invisible operators, variation selectors, tags: first and last code points."""
OPTIONAL_MARKS = ((0x0591, 0x05BD), (0x05BF, 0x05BF), (0x05C1, 0x05C2), (0x05C4, 0x05C5), (0x05C7, 0x05C7),
                  (0x0610, 0x061A), (0x0640, 0x0640), (0x064B, 0x0652), (0x0670, 0x0670), (0x06D6, 0x06DC),
                  (0x06DF, 0x06E8), (0x06EA, 0x06ED))  # fmt: skip
"""Points and accents of Hebrew; vowel signs, tatweel and Koranic marks of Arabic: first and last code points. Hamza and
madda are none: they make other letters."""
_IDEOGRAPHS = ((0x2E80, 0x312F), (0x3190, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x1AFF0, 0x1B16F),
               (0x20000, LAST_LISTED))  # fmt: skip
"""Han, bopomofo and kana; Hangul has spaces."""
_CLUSTERS = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19FF), (0x1A20, 0x1AAF),
             (0x1B00, 0x1B7F), (0xA980, 0xA9FF), (0xAA60, 0xAADF))  # fmt: skip
"""Thai and Lao, Burmese, Khmer, Tai Le and New Tai Lue, Tai Tham, Balinese, Javanese, Tai Viet."""
_PREFIXES = "เแโใไເແໂໃໄ\uaab5\uaab6\uaab9\uaabb\uaabc"
_VOWELS_AFTER = "ะาำๅະາຳ"
"""Vowels that Unicode counts among the letters, as they are drawn beside the consonant."""
_STACKERS = "\u1039\u17d2\u1a60\u1b44\ua9c0"
_SYLLABLE_ENDS = "\u0f0b\u0f0c\u1361"
"""Tsheg of Tibetan, word space of Ethiopic."""


def _within(point: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= point <= last for first, last in ranges)


def _class(point: int, character: str, category: str) -> int:
    """Class of a letter, mark or digit."""
    if category[0] == "M" or character in _VOWELS_AFTER:
        return STACKER if character in _STACKERS else MARK
    if _within(point, _CLUSTERS):
        return PREFIX if character in _PREFIXES else {"Lo": UNIT, "Lm": MARK}.get(category, LETTER)
    return UNIT if _within(point, _IDEOGRAPHS) else LETTER


def _folded(point: int, character: str) -> int:
    fold = character.casefold()
    return ord(fold) if len(fold) == 1 else point


def _tables() -> tuple[WordTable, WordTable]:
    letters = np.zeros(LAST_LISTED + 1, dtype=np.uint32)
    spaced = np.zeros(LAST_LISTED + 1, dtype=np.uint32)
    for point in range(LAST_LISTED + 1):
        character = chr(point)
        category = unicodedata.category(character)
        if category[0] in "LMN" or category in ("Co", "Cn", "Cs"):
            letters[point] = spaced[point] = _class(point, character, category) << FOLD_BITS | _folded(point, character)
        elif not character.isspace():
            spaced[point] = (CLOSING if character in _SYLLABLE_ENDS else MARK) << FOLD_BITS | point
    for table in (letters, spaced):
        for first, last in (*INVISIBLE, *OPTIONAL_MARKS):
            table[first : last + 1] = IGNORED << FOLD_BITS
    return letters, spaced


LETTERS_AND_DIGITS, SPACED = _tables()
