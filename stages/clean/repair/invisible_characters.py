"""Invisible characters: removed, but for those that carry meaning.

- `visible`: the text without soft hyphens, zero-width characters, directions and tags without meaning

Files of any format have them: a soft hyphen where a line may be divided, a zero-width space in a long address, marks
that an editor left. Kept are joiners and non-joiners between letters of Arabic, Indic and other scripts, which decide
how these look (`می‌خواهم`), joiners and tags of emoji, zero-width spaces between words of Thai, Lao, Khmer and Burmese,
which have no other separator, and grapheme joiners that order accents. Words are compared without any of them
(`stages/common/word_classes.py`).
"""

import re
import unicodedata

HIDDEN = "\u00ad\u034f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\U000e0000-\U000e007f"
"""Ranges of a regular expression. Variation selectors are not among them: they decide how a character looks."""
_RUN = re.compile(f"[{HIDDEN}]+")
_DIVIDED_WORD = re.compile("(?<=[^\\W\\d_])\u00ad[ \t]*\n[ \t]*(?=[^\\W\\d_])")
"""A word that was divided at the end of a line."""
_SPACE, _NON_JOINER, _JOINER, _GRAPHEME_JOINER = "\u200b\u200c\u200d\u034f"
_JOINING = re.compile(
    "[\u0600-\u0dff\u0f00-\u109f\u1780-\u18af\u1900-\u1cff\ua800-\uabff\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff]"
)
"""Arabic, Syriac, Indic, Tibetan, Burmese, Khmer, Mongolian and their relatives."""
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua980-\ua9ff\uaa60-\uaadf]"
)
_FLAG = "\U0001f3f4"
"""The black flag, which tags turn into that of a region."""


def visible(text: str) -> str:
    """Text without invisible characters, except where they carry meaning; idempotent."""
    if "\u00ad" in text:
        text = _DIVIDED_WORD.sub("", text)
    return _RUN.sub(_kept, text)


def _kept(match: re.Match[str]) -> str:
    """The character to keep of a run of invisible characters."""
    run, text = match[0], match.string
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    if before == _FLAG:
        return "".join(character for character in run if character >= "\U000e0000")
    joins = bool(_JOINING.match(before)) and before.isprintable() and not before.isspace()
    if _JOINER in run and (joins or (_is_pictograph(before) and _is_pictograph(after))):
        return _JOINER
    if _NON_JOINER in run and joins and _JOINING.match(after):
        return _NON_JOINER
    if _SPACE in run and _WITHOUT_SPACES.match(before) and _WITHOUT_SPACES.match(after):
        return _SPACE
    return _GRAPHEME_JOINER if _GRAPHEME_JOINER in run and after and unicodedata.combining(after) else ""


def _is_pictograph(character: str) -> bool:
    """True for symbols, skin tones and the selector of emoji presentation."""
    return character == "\ufe0f" or (bool(character) and unicodedata.category(character) in ("So", "Sk"))
