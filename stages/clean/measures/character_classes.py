"""Classes of Unicode characters, as bits in a table that compiled passes index by code point."""

import unicodedata

import numpy as np
import numpy.typing as npt

from stages.common.compiled import compiled
from stages.common.word_hashes import Bytes

LETTER, UPPER, LOWER, DIGIT, SPACE, SYMBOL, TERMINAL, BULLET, CLOSING = (1 << bit for bit in range(9))
"""LETTER: `str.isalpha`. SPACE: `str.isspace`. DIGIT: decimal digits (Nd). SYMBOL: punctuation, symbols and control
characters (P, S, C). TERMINAL: terminal punctuation. BULLET: marker of a list item. CLOSING: closing quotes
and brackets."""

BULLETS = "•‣▶◦■-*●○◆◇□▪▫⁃∙·・･"
TERMINALS = ".!?།༎༏༔‽‼⁇⁈⁉。．！？｡﹒﹖﹗։؝؞؟۔܀܁܂߹࠷࠹࠽࠾।॥၊။።፧፨᙮᜵᜶។៕៖៙៚᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᭽᭾᰻᰼᱾᱿⸮⸼⹓⹔꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫"
"""Terminal punctuation of FineWeb's rule (that of spaCy's sentence splitter), up to U+FFFF, and Tibetan's."""
LAST_LISTED = 0x323AF
"""Last assigned code point (Unicode 15); the unassigned and private ones after it have no class."""


def _class(character: str) -> int:
    category = unicodedata.category(character)
    bits = LETTER if category[0] == "L" else SYMBOL if category[0] in "PSC" else 0
    bits |= {"Lu": UPPER, "Ll": LOWER, "Nd": DIGIT}.get(category, 0)
    bits |= SPACE if character.isspace() else 0
    bits |= CLOSING if category in ("Pe", "Pf") or character in "\"'“" else 0
    return bits | (TERMINAL if character in TERMINALS else 0) | (BULLET if character in BULLETS else 0)


def _table() -> npt.NDArray[np.uint16]:
    return np.fromiter((_class(chr(point)) for point in range(LAST_LISTED + 1)), dtype=np.uint16)


CLASSES = _table()
"""(characters,) uint16, by code point."""


@compiled
def width_at(data: Bytes, position: int) -> int:
    """Bytes of the character at `position`, 1 to 4."""
    byte = data[position]
    return 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4


@compiled
def code_point(data: Bytes, position: int, width: int) -> np.int64:
    """Code point of the character of `width` bytes at `position`."""
    if width == 1:
        return np.int64(data[position])
    value = np.int64(data[position]) & np.int64(0x7F >> width)
    for offset in range(1, width):
        value = (value << 6) | (np.int64(data[position + offset]) & 0x3F)
    return value
