"""ftfy's repairs at many times its speed: one compiled pass finds the few lines that ftfy could change.

- `repair`: the result of `ftfy.fix_text(text, FTFY_CONFIG)`
- `FTFY_CONFIG`: the repairs that are enabled

ftfy works line by line and leaves a line unchanged unless it contains one of the following, so only such lines are
passed to it (ftfy 6.3, `fix_and_explain`, `badness.BADNESS_RE`):

1. a control character, a carriage return or another line separator of Unicode, a byte order mark or the like;
2. an `&entity;` before the first line with `<`: from that line on ftfy decodes none;
3. text that its heuristic calls bad, which takes two adjacent characters beyond ASCII, or one of `ŒœÃÂ`;
4. characters that are not in NFC.
"""

import unicodedata

import ftfy
import ftfy.badness
import ftfy.fixes
import numpy as np

from stages.clean.measures.character_classes import code_point, width_at
from stages.common.compiled import compiled
from stages.common.word_hashes import Bytes, Positions

# For text to train a language model on: undo damage, keep what an author may have chosen (curly quotes, ligatures,
# full-width letters).
FTFY_CONFIG = ftfy.TextFixerConfig(
    unescape_html="auto",
    uncurl_quotes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    normalization="NFC",
    explain=False,
)
_ENTITIES_KEPT = FTFY_CONFIG._replace(unescape_html=False)

_SURE = 1
"""ftfy has to repair the line."""
_MAYBE_BAD = 2
"""ftfy's heuristic has to decide."""
_ENTITY = 4
"""An entity to decode; the result has to be checked again."""
_RETURN = 8
"""A carriage return."""
_ENTITY_LENGTH = 24
"""Letters and digits of the longest entity that ftfy decodes (`chardata.HTML_ENTITY_RE`)."""
FIRST_HARMLESS, LAST_HARMLESS = 0x2800, 0xF8FE
"""No character of this range is part of `BADNESS_RE`: ideographs, kana and hangul may be neighbors."""


def repair(text: str) -> str:
    """Result of `ftfy.fix_text(text, FTFY_CONFIG)`; the same object if nothing changes."""
    longest = FTFY_CONFIG.max_decode_length
    if len(text) > longest and max(map(len, text.split("\n"))) >= longest:
        return str(ftfy.fix_text(text, FTFY_CONFIG))  # ftfy splits such lines.
    try:
        encoded = text.encode()
    except UnicodeEncodeError:  # lone surrogates, which ftfy joins or replaces
        return str(ftfy.fix_text(text, FTFY_CONFIG))
    composed = text.isascii() or unicodedata.is_normalized("NFC", text)
    lines = np.empty((encoded.count(b"\n") + 1, 3), dtype=np.int64)
    count, markup = _suspicious_lines(np.frombuffer(encoded, dtype=np.uint8), composed, lines)
    pieces, copied = [], 0
    for start, end, reason in lines[:count].tolist():
        line = encoded[start:end].decode()
        fixed = _repair_line(line, reason, FTFY_CONFIG if start < markup else _ENTITIES_KEPT)
        if fixed != line:
            pieces += [encoded[copied:start].decode(), fixed]
            copied = end
    return "".join([*pieces, encoded[copied:].decode()]) if pieces else text


def _repair_line(line: str, reason: int, config: ftfy.TextFixerConfig) -> str:
    if reason == _MAYBE_BAD and not ftfy.badness.is_bad(line):
        return line
    if not reason & (_SURE | _MAYBE_BAD):  # By far the most frequent damage: one or two of ftfy's steps repair it.
        simple = ftfy.fixes.unescape_html(line) if reason & _ENTITY else line
        simple = simple.replace("\r\n", "\n").replace("\r", "\n")
        if not {"<", "&"} <= set(simple) and _is_sound(simple):
            return str(simple)
    return str(ftfy.fix_text(line, config))


def _is_sound(line: str) -> bool:
    data = np.frombuffer(line.encode("utf-8", "surrogatepass"), dtype=np.uint8)
    lines = np.empty((line.count("\n") + 1, 3), dtype=np.int64)
    return _suspicious_lines(data, unicodedata.is_normalized("NFC", line), lines)[0] == 0


@compiled
def _suspicious_lines(data: Bytes, composed: bool, lines: Positions) -> tuple[int, int]:
    """Lines that ftfy might change.

    Args:
        data: (bytes,) uint8, UTF-8.
        composed: whether the text is in NFC.
        lines: (lines, 3) int64, filled with start, end (after the line feed) and reason of each such line.

    Returns:
        Number of such lines, and the start of the first line with `<`, from which on ftfy decodes no entities.
    """
    count, start, reason, entity, before = 0, 0, 0, False, np.int64(0)
    markup = len(data)
    position = 0
    while position < len(data):
        byte = data[position]
        width = 1
        if byte >= 0x80:
            width = width_at(data, position)
            character = code_point(data, position, width)
            reason |= _reason(character, before) if composed else _SURE
            before = character
        else:
            before = np.int64(0)
            if byte == 0x3C:
                markup = min(markup, start)
            elif byte == 0x26:
                entity = entity or _is_entity(data, position + 1)
            elif byte == 0x0D:
                reason |= _RETURN
            elif byte == 0x7F or (byte < 0x20 and byte != 0x09 and byte != 0x0A and byte != 0x0C):
                reason |= _SURE
        position += width
        if byte == 0x0A or position >= len(data):
            if entity and markup > start:
                reason |= _ENTITY
            if reason:
                lines[count, 0], lines[count, 1], lines[count, 2] = start, position, reason
                count += 1
            start, reason, entity = position, 0, False
    return count, markup


@compiled
def _reason(character: np.int64, before: np.int64) -> int:
    """Reason why a character beyond ASCII makes its line suspicious; `before` is the one before it, 0 if ASCII."""
    if character < 0xA0 or 0x2028 <= character <= 0x2029 or 0x206A <= character <= 0x206F:
        return _SURE
    if character == 0xFEFF or 0xFFF9 <= character <= 0xFFFC:
        return _SURE
    if character == 0xC2 or character == 0xC3 or character == 0x152 or character == 0x153:
        return _MAYBE_BAD
    if before and not _is_harmless(character) and not _is_harmless(before):
        return _MAYBE_BAD
    return 0


@compiled
def _is_harmless(character: np.int64) -> bool:
    return bool(FIRST_HARMLESS <= character <= LAST_HARMLESS or character > 0xFFFF)


@compiled
def _is_entity(data: Bytes, position: int) -> bool:
    """True if the text from `position`, after a `&`, matches `#?[0-9A-Za-z]{1,24};`."""
    if position < len(data) and data[position] == 0x23:
        position += 1
    length = 0
    while position < len(data) and length <= _ENTITY_LENGTH:
        byte = data[position]
        if byte == 0x3B:
            return length > 0
        lower = byte | 0x20
        if not (0x30 <= byte <= 0x39 or 0x61 <= lower <= 0x7A):
            return False
        position += 1
        length += 1
    return False
