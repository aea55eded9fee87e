"""What each Unicode character is, as bits in one table that compiled passes look up by code point."""

import unicodedata

import numba
import numpy as np
import numpy.typing as npt

from stages.common.word_hashes import Bytes

LETTER, UPPER, LOWER, DIGIT, SPACE, SYMBOL, TERMINAL, BULLET = (1 << bit for bit in range(8))
"""LETTER: `str.isalpha`. SPACE: `str.isspace`. DIGIT: decimal digits (Nd). SYMBOL: punctuation, symbols and control
characters (P, S, C). TERMINAL: ends a sentence. BULLET: begins an item of a list."""

BULLETS = "•‣▶◦■-*"
TERMINALS = ".!?‽‼⁇⁈⁉。．！？｡﹒﹖﹗։؝؞؟۔܀܁܂߹࠷࠹࠽࠾।॥၊။።፧፨᙮᜵᜶។៕៖៙៚᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᭽᭾᰻᰼᱾᱿⸮⸼⹓⹔꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫"
"""The marks that FineWeb's rule takes (those of spaCy's sentence splitter), up to U+FFFF."""
LAST_LISTED = 0x323AF
"""Unassigned and private from here on (Unicode 15): of no class."""


def _class(character: str) -> int:
    category = unicodedata.category(character)
    bits = LETTER if category[0] == "L" else SYMBOL if category[0] in "PSC" else 0
    bits |= {"Lu": UPPER, "Ll": LOWER, "Nd": DIGIT}.get(category, 0)
    bits |= SPACE if character.isspace() else 0
    return bits | (TERMINAL if character in TERMINALS else 0) | (BULLET if character in BULLETS else 0)


def _table() -> npt.NDArray[np.uint8]:
    return np.fromiter((_class(chr(point)) for point in range(LAST_LISTED + 1)), dtype=np.uint8)


CLASSES = _table()
"""(characters,) uint8, by code point."""


@numba.njit(cache=True)
def width_at(data: Bytes, at: int) -> int:
    """Bytes of the character at `at`, 1 to 4."""
    byte = data[at]
    return 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4


@numba.njit(cache=True)
def code_point(data: Bytes, at: int, width: int) -> np.int64:
    """Code point of the character of `width` bytes at `at`."""
    if width == 1:
        return np.int64(data[at])
    value = np.int64(data[at]) & np.int64(0x7F >> width)
    for offset in range(1, width):
        value = (value << 6) | (np.int64(data[at + offset]) & 0x3F)
    return value
