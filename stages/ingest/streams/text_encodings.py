"""Encodings of text: by a mark, by the zeros of UTF-16, as UTF-8, or by statistics; the same for all formats.

- `wide_encoding`: UTF-16 or UTF-32, by its mark or its zeros
- `guessed_encoding`: an encoding of 8 bits or of East Asia, by statistics
- `recoded_lines`: a file of records in UTF-8, if its lines are in another encoding; `plain_text` decodes single texts
"""

import codecs
from collections.abc import Callable, Iterator
from typing import IO

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""Longer marks first: UTF-16's is a prefix of UTF-32's."""
SAMPLE_BYTES = 1 << 16
"""Bytes for charset-normalizer, which reads about 1 MB/s, and for the zeros of UTF-16."""
FALLBACK = "cp1252"
"""Default encoding of web browsers (WHATWG Encoding standard: Latin-1 means windows-1252)."""
MIN_VALID_LINES = 0.5
"""Minimum share of valid lines among those beyond ASCII, from which a text is UTF-8 with some damaged lines."""
MIN_NUL_SHARE = 0.2
"""Minimum share of NUL bytes from which a text is UTF-16; ASCII in UTF-16 has one half, text in UTF-8 none."""
NUL_RATIO = 4
"""Minimum ratio of NUL bytes at even and odd offsets in UTF-16: one byte of each pair is NUL."""
MAX_CONTROL_SHARE = 0.1
"""Maximum share of control characters in UTF-8; in UTF-16, half the bytes of Cyrillic or Arabic text are such."""
MAX_LINE_BYTES = 1 << 20
"""Longer lines are recoded in pieces."""
ASCII_BYTES = 1 << 25
"""A file of records that begins with so much ASCII is not recoded: resumed, it need not be read from its beginning."""
_CONTROLS = bytes({*range(32), 127} - {*b"\t\n\f\r\x1b"})


def wide_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32 by the byte order mark, or UTF-16 by the zeros in spaces and line ends; None for others."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding if encoding != "utf-8" else None
    sample = data[: min(SAMPLE_BYTES, len(data) // 2 * 2)]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if even + odd > MIN_NUL_SHARE * len(sample) and max(even, odd) >= NUL_RATIO * min(even, odd):
        return "utf-16-be" if even > odd else "utf-16-le"
    return utf_16_by_blanks(data)


def utf_16_by_blanks(data: bytes) -> str | None:
    """UTF-16 of a script with few or no zeros, such as Cyrillic or Chinese: by those of spaces and line ends."""
    sample = data[: min(SAMPLE_BYTES, len(data) // 2 * 2)]
    if not sample.count(0) or _is_utf8(sample):
        return None
    even, odd = sample[::2], sample[1::2]
    for encoding, low, high in (("utf-16-le", even, odd), ("utf-16-be", odd, even)):
        blanks = [upper == 0 for lower, upper in zip(low, high, strict=True) if lower in b"\n "]
        if sum(blanks) > len(blanks) / 2:
            return encoding
    return None


def guessed_encoding(sample: bytes) -> str:
    """The fallback if possible, as most such text is in it; charset-normalizer's first choice is often a similar
    encoding (cp1250 for German and English, cp1257 for French)."""
    import charset_normalizer

    matches = charset_normalizer.from_bytes(sample)
    possible = {name for match in matches for name in (match.encoding, *match.could_be_from_charset)}
    best = matches.best()
    return FALLBACK if best is None or FALLBACK in possible else best.encoding


def recoded_lines(
    stream: IO[bytes], chunk_bytes: int, on_unchanged: Callable[[], None] = lambda: None
) -> Iterator[bytes]:
    """Chunks of a file of records in UTF-8; the first lines beyond ASCII decide on the encoding of the file.

    If most of them are UTF-8, the others are damaged, and are left as they are. So is a file that begins with
    `ASCII_BYTES` of ASCII.

    Args:
        stream: the file, without a byte order mark.
        chunk_bytes: bytes to read at a time.
        on_unchanged: called once it is decided that no byte of the file changes.
    """
    encoding: str | None = None
    held: list[bytes] = []
    held_bytes = ascii_bytes = 0
    while data := stream.read1(chunk_bytes):  # type: ignore[attr-defined]  # `read` loses bytes before damage
        if encoding is None and ascii_bytes >= ASCII_BYTES and not held:
            encoding = "utf-8"
            on_unchanged()
        if encoding == "utf-8" or (not held and data.isascii()):
            ascii_bytes += len(data)
            yield data
            continue
        held.append(data)
        held_bytes += len(data)
        if b"\n" in data or held_bytes >= MAX_LINE_BYTES:
            data = b"".join(held)
            end = _end_of_lines(data)
            lines, rest = data[:end], data[end:]
            encoding = encoding or _encoding_of_lines(lines)
            yield _recoded(lines, encoding)
            if encoding == "utf-8":
                on_unchanged()
                yield rest
                rest = b""
            held, held_bytes = [rest] if rest else [], len(rest)
    rest = b"".join(held)
    yield _recoded(rest, encoding or _encoding_of_lines(rest))


def _are_mostly_utf8(lines: list[bytes]) -> bool:
    """Whether most lines beyond ASCII are UTF-8."""
    beyond = [line for line in lines if not line.isascii()]
    return sum(map(_is_valid, beyond)) >= MIN_VALID_LINES * len(beyond)


def _is_valid(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and error.start > len(line) - 4
    return True


def _is_utf8(sample: bytes) -> bool:
    return _is_valid(sample) and len(sample) - len(sample.translate(None, _CONTROLS)) <= MAX_CONTROL_SHARE * len(sample)


def _encoding_of_lines(data: bytes) -> str | None:
    """Encoding of lines of records, an extension of ASCII; None for ASCII, which leaves the encoding open."""
    if data.isascii():
        return None
    lines = data.splitlines()
    if _is_valid(data) or _are_mostly_utf8(lines):
        return "utf-8"
    encoding = guessed_encoding(b"\n".join(line for line in lines if not line.isascii())[:SAMPLE_BYTES])
    ascii_characters = bytes(range(32, 127))
    try:
        return encoding if ascii_characters.decode(encoding).encode() == ascii_characters else FALLBACK
    except UnicodeDecodeError:
        return FALLBACK


def _recoded(lines: bytes, encoding: str | None) -> bytes:
    """Lines in UTF-8; those that the encoding cannot decode are left as they are."""
    if encoding in (None, "utf-8"):
        return lines
    try:
        return lines.decode(encoding).encode()
    except UnicodeDecodeError:
        single = lines.splitlines(keepends=True)
        return lines if len(single) == 1 else b"".join(_recoded(line, encoding) for line in single)


def _end_of_lines(data: bytes) -> int:
    """Offset after the last line end; in a line that is too long, after a byte that is part of no character beyond
    ASCII in any encoding."""
    if end := data.rfind(b"\n") + 1:
        return end
    return max(data.rfind(mark) for mark in (b" ", b",", b'"', b"\r")) + 1 or len(data)
