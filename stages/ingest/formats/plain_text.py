"""Plain text in any encoding."""

import codecs
import re

from stages.ingest.records import unix_line_ends
from stages.ingest.streams.text_encodings import (
    BYTE_ORDER_MARKS,
    FALLBACK,
    MIN_NUL_SHARE,
    MIN_VALID_LINES,
    NUL_RATIO,
    SAMPLE_BYTES,
    guessed_encoding,
    utf_16_by_blanks,
)

MIN_NULS = 4
"""Minimum number of NUL bytes in UTF-16."""
MIN_PADDING = 8
"""Minimum number of NUL bytes at the end that are the unwritten blocks of a file, not characters."""
VALID_PER_INVALID = 2
"""Minimum ratio of characters to damaged bytes of a line in UTF-8; text in other encodings has 0.1."""
_JAPANESE_ESCAPE = re.compile(rb"\x1b(?:\$[@B]|\(J)")
_PAIR_OF_SURROGATES = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]")
"""A character beyond U+FFFF in CESU-8, which Java and Oracle write for UTF-8."""
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


def decode(data: bytes) -> str:
    """Text of a file with LF line ends: by its byte order mark, as UTF-8, as UTF-8 with lines in another encoding, or
    by statistics."""
    return unix_line_ends(_decode(data))


def _decode(data: bytes) -> str:
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode("utf-8-sig" if mark == codecs.BOM_UTF8 else encoding, "replace")
    if padding := len(data) - len(content := data.rstrip(b"\0")):
        even = content + b"\0" * (len(content) % 2)
        if wide := _decode_wide(even if padding >= MIN_PADDING else data):
            return wide
        data = content if padding >= MIN_PADDING else data
    elif wide := _decode_wide(data):
        return wide
    try:
        return data.decode("iso2022_jp_2" if data.isascii() and _JAPANESE_ESCAPE.search(data) else "utf-8")
    except UnicodeDecodeError as error:
        begin = data[: error.start]
        if error.reason == "unexpected end of data" and not begin.isascii():
            return begin.decode() + "\ufffd"  # cut off inside a character
        return _decode_surrogates(data) or _decode_mixed(data) or _decode_guessed(data)


def _decode_wide(data: bytes) -> str | None:
    """Text in UTF-16 or UTF-32 without a byte order mark."""
    if data.count(0) <= MIN_NUL_SHARE * len(data):
        encoding = utf_16_by_blanks(data)
        return data.decode(encoding, "replace") if encoding else None
    for encoding in ("utf-32-le", "utf-32-be") if len(data) % 4 == 0 else ():
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    even, odd = data[::2].count(0), data[1::2].count(0)
    if max(even, odd) < MIN_NULS or max(even, odd) < NUL_RATIO * min(even, odd):
        return None
    return data.decode("utf-16-be" if even > odd else "utf-16-le", "replace")


def _decode_surrogates(data: bytes) -> str | None:
    if not _PAIR_OF_SURROGATES.search(data):
        return None
    try:
        pairs = data.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return pairs.decode("utf-16-le", "replace")


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
            repaired = line.decode("utf-8", "replace")
            if len(_MULTIBYTE.findall(line)) >= VALID_PER_INVALID * repaired.count("\ufffd"):
                decoded.append(repaired)
                continue
            invalid += 1
            decoded.append(line.decode(FALLBACK, "replace"))
    return "".join(decoded) if non_ascii - invalid >= MIN_VALID_LINES * non_ascii else None


def _decode_guessed(data: bytes) -> str:
    try:
        return data.decode(guessed_encoding(data[:SAMPLE_BYTES]))
    except UnicodeDecodeError:
        return data.decode(FALLBACK, "replace")
