"""Normalized text: mojibake repaired, NFC, no control and no meaningless invisible characters, tidy white space."""

import re
import unicodedata
from collections.abc import Iterable

import numpy as np

from stages.clean.repair.invisible_characters import visible
from stages.clean.repair.mojibake import repair
from stages.common.compiled import compiled
from stages.common.word_hashes import Bytes

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_BLANK_LINES = re.compile(r"\n{4,}")
_CHARACTERS, _LINES = 1, 2
"""Possible untidiness: in characters, or in white space at line ends and blank lines."""
_ROUNDS = 10
"""Far more than any known text needs; each round that changes something undoes one layer of damage."""


def normalize(text: str) -> str:
    """Repair a document; idempotent.

    A repair can make another one necessary (an accent that a control character separated from its letter can complete
    a mojibake sequence), so repairs are repeated until nothing changes; intact text takes one round.
    """
    for _ in range(_ROUNDS):
        repaired = tidy(repair(text))
        if repaired == text:
            break
        text = repaired
    return text


def tidy(text: str) -> str:
    """Text in NFC with line feeds for line breaks, no control or invisible characters, no white space at line ends, at
    most two blank lines in a row and none at either end."""
    untidy = _untidiness(np.frombuffer(text.encode(), dtype=np.uint8))
    if untidy & _CHARACTERS:
        text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
        # Before NFC: a control character between a letter and its accent would keep the two from composing.
        text = visible(_CONTROL.sub("", text))
    text = unicodedata.normalize("NFC", text)
    if untidy:
        # Line by line, as a regular expression for white space before a line end is quadratic in the length of a run.
        text = join_lines([line.rstrip() for line in text.split("\n")])
    return text


def join_lines(lines: Iterable[str]) -> str:
    """Text of lines that have no trailing white space, with at most two blank lines in a row and none at either end."""
    return _BLANK_LINES.sub("\n\n\n", "\n".join(lines)).strip("\n")


@compiled
def _untidiness(data: Bytes) -> int:
    """Bits for what `tidy` may have to do besides NFC; 0 only if nothing."""
    feeds = 1  # so that a line feed at the beginning is one too many
    untidy = 0
    for position in range(len(data)):
        byte = data[position]
        if byte == 0x0A:
            feeds += 1
            if feeds == 4 or feeds > position or _ends_in_space(data, position):
                untidy |= _LINES
            continue
        feeds = 0
        control = (byte < 0x20 and byte != 0x09) or byte == 0x7F
        if control or (byte == 0xC2 and data[position + 1] < 0xA0) or byte == 0xEF:
            return _CHARACTERS
        if byte >= 0xC2 and _may_be_invisible(byte, data[position + 1], data[min(position + 2, len(data) - 1)]):
            return _CHARACTERS
    if len(data) and (data[-1] == 0x0A or _ends_in_space(data, len(data))):
        untidy |= _LINES
    return untidy


@compiled
def _may_be_invisible(first: int, second: int, third: int) -> bool:
    """True for the first bytes of the characters of `invisible_characters.HIDDEN`, and of a few others."""
    if first == 0xE2:
        general = second == 0x80 and (0x8B <= third <= 0x8F or 0xAA <= third <= 0xAE)
        return bool(general or (second == 0x81 and 0xA0 <= third <= 0xAF))
    latin_or_arabic = (first == 0xC2 and second == 0xAD) or (first == 0xD8 and second == 0x9C)
    return bool(latin_or_arabic or (first == 0xCD and second == 0x8F) or (first == 0xF3 and second == 0xA0))


@compiled
def _ends_in_space(data: Bytes, end: int) -> bool:
    """True if the character before `end` is white space or shares its first two bytes with one beyond ASCII."""
    if end == 0:
        return False
    last = data[end - 1]
    if last < 0x80:
        return bool(last == 0x20 or last == 0x09)
    if data[end - 2] == 0xC2:
        return bool(last == 0xA0)
    lead, second = data[max(0, end - 3)], data[end - 2]
    punctuation = lead == 0xE2 and (second == 0x80 or second == 0x81)
    return bool(punctuation or ((lead == 0xE1 or lead == 0xE3) and second <= 0x9A))
