"""Text as it was meant: mojibake repaired, one Unicode form, no control characters, orderly white space."""

import re
import unicodedata

import ftfy

# For text that a language model learns from: undo damage, keep what an author may have chosen (curly quotes,
# ligatures, full-width letters).
FTFY_CONFIG = ftfy.TextFixerConfig(
    unescape_html="auto",
    uncurl_quotes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    normalization="NFC",
    explain=False,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_BLANK_LINES = re.compile(r"\n{4,}")
_ENTITY = re.compile(r"&#?\w{1,24};")


def normalize(text: str) -> str:
    """Repair one document; doing it twice changes nothing more on clean text."""
    repaired = text if _ftfy_would_keep(text) else ftfy.fix_text(text, FTFY_CONFIG)
    lines = repaired.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    # Control characters first: one between a letter and its accent would keep the two from composing.
    plain = unicodedata.normalize("NFC", _CONTROL.sub("", lines))
    # Line by line, as a regular expression for white space before a line's end is quadratic in a long run of it.
    trimmed = "\n".join(line.rstrip() for line in plain.split("\n"))
    return _BLANK_LINES.sub("\n\n\n", trimmed).strip("\n")


def _ftfy_would_keep(text: str) -> bool:
    """ASCII without control characters, carriage returns and entities has nothing that ftfy changes."""
    return text.isascii() and not _CONTROL.search(text) and not _ENTITY.search(text)
