"""Plain text in whatever encoding it is."""

import codecs

import charset_normalizer

from stages.ingest.byte_streams import BYTE_ORDER_MARKS

SAMPLE_BYTES = 1 << 16
"""charset-normalizer reads about 1 MB/s; this much decides."""
FALLBACK = "cp1252"
"""What web browsers take for text of unknown encoding (WHATWG Encoding standard: Latin-1 means windows-1252)."""
LEAST_VALID_LINES = 0.5
LEAST_NUL_SHARE = 0.2
"""Of all bytes; ASCII in UTF-16 has one half, and text in UTF-8 none."""


def decode(data: bytes) -> str:
    """The text of a file: by its byte order mark, as UTF-8, as UTF-8 with lines of something else, or by statistics."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode("utf-8-sig" if mark == codecs.BOM_UTF8 else encoding, "replace")
    if data.count(0) > LEAST_NUL_SHARE * len(data):
        big_endian = data[::2].count(0) > data[1::2].count(0)
        return data.decode("utf-16-be" if big_endian else "utf-16-le", "replace")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _decode_mixed(data) or _decode_guessed(data)


def _decode_mixed(data: bytes) -> str | None:
    """UTF-8 but for some lines, which are read in the fallback; None where most lines with accents are not UTF-8."""
    lines = data.splitlines(keepends=True)
    decoded: list[str] = []
    odd = broken = 0
    for line in lines:
        odd += not line.isascii()
        try:
            decoded.append(line.decode())
        except UnicodeDecodeError:
            broken += 1
            decoded.append(line.decode(FALLBACK, "replace"))
    return "".join(decoded) if odd - broken >= LEAST_VALID_LINES * odd else None


def _decode_guessed(data: bytes) -> str:
    """As the fallback wherever that is possible, as most such text is; charset-normalizer's first choice is often
    a neighbor of it (cp1250 for German and English, cp1257 for French)."""
    matches = charset_normalizer.from_bytes(data[:SAMPLE_BYTES])
    possible = {name for match in matches for name in (match.encoding, *match.could_be_from_charset)}
    best = matches.best()
    encoding = FALLBACK if best is None or FALLBACK in possible else best.encoding
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return data.decode(FALLBACK, "replace")
