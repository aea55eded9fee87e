"""Plain text in any encoding."""

import codecs

import charset_normalizer

from stages.ingest.byte_streams import BYTE_ORDER_MARKS
from stages.ingest.records import unix_line_ends

SAMPLE_BYTES = 1 << 16
"""Bytes for charset-normalizer, which reads about 1 MB/s."""
FALLBACK = "cp1252"
"""Default encoding of web browsers (WHATWG Encoding standard: Latin-1 means windows-1252)."""
MIN_VALID_LINES = 0.5
"""Minimum share of valid lines among those beyond ASCII, from which a text is UTF-8 with some damaged lines."""
MIN_NUL_SHARE = 0.2
"""Minimum share of NUL bytes in UTF-16; ASCII in UTF-16 has one half, text in UTF-8 none."""


def decode(data: bytes) -> str:
    """Text of a file with LF line ends: by its byte order mark, as UTF-8, as UTF-8 with lines in another encoding, or
    by statistics."""
    return unix_line_ends(_decode(data))


def _decode(data: bytes) -> str:
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode("utf-8-sig" if mark == codecs.BOM_UTF8 else encoding, "replace")
    if data.count(0) > MIN_NUL_SHARE * len(data):
        big_endian = data[::2].count(0) > data[1::2].count(0)
        return data.decode("utf-16-be" if big_endian else "utf-16-le", "replace")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _decode_mixed(data) or _decode_guessed(data)


def _decode_mixed(data: bytes) -> str | None:
    """UTF-8 with some lines in the fallback encoding; None if most lines beyond ASCII are not UTF-8."""
    lines = data.splitlines(keepends=True)
    decoded: list[str] = []
    non_ascii = invalid = 0
    for line in lines:
        non_ascii += not line.isascii()
        try:
            decoded.append(line.decode())
        except UnicodeDecodeError:
            invalid += 1
            decoded.append(line.decode(FALLBACK, "replace"))
    return "".join(decoded) if non_ascii - invalid >= MIN_VALID_LINES * non_ascii else None


def _decode_guessed(data: bytes) -> str:
    """Decode by the fallback if possible, as most such text is in it; charset-normalizer's first choice is often a
    similar encoding (cp1250 for German and English, cp1257 for French)."""
    matches = charset_normalizer.from_bytes(data[:SAMPLE_BYTES])
    possible = {name for match in matches for name in (match.encoding, *match.could_be_from_charset)}
    best = matches.best()
    encoding = FALLBACK if best is None or FALLBACK in possible else best.encoding
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return data.decode(FALLBACK, "replace")
