"""Words and word n-grams of UTF-8 text as 64-bit hashes, in compiled passes over the bytes; no n-gram is ever a string.

- `words`: hash, start and end of every word
- `ngram_hashes`: hashes of all n-grams of words
- `text_columns`: bytes and offsets of an Arrow string column, without copying

Near-duplicate detection, decontamination and the repetition rules compare such hashes. ASCII case is ignored; the
separators of words are those of one of the two tables below.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.common.compiled import compiled

Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

PRIME = np.uint64(0x9E3779B97F4A7C15)
"""Multiplier of the polynomial hash: odd, near 2^64 over the golden ratio (Knuth, TAOCP 3, 6.4)."""
_ONE = np.uint64(1)


def _table(separators: bytes) -> Bytes:
    table = np.arange(256, dtype=np.uint8)
    table[0] = 1  # 0 is reserved for separators; U+0000 and U+0001 hash alike.
    table[ord("A") : ord("Z") + 1] += 32
    table[list(separators)] = 0
    return table


SPACED = _table(bytes(byte for byte in range(128) if chr(byte).isspace()))
"""Byte -> byte to hash, 0 for a separator: words are those of `str.split`."""
LETTERS_AND_DIGITS = _table(bytes(byte for byte in range(128) if not chr(byte).isalnum()))
"""Punctuation and symbols are separators too ('Word, word!' and 'word word' have the same words), and each kana or CJK
ideograph is a word of its own, since these scripts have no separators."""


class Words(NamedTuple):
    """The words of one text."""

    hashes: Hashes
    """(words,) uint64, equal for words that differ only in ASCII case."""
    starts: Positions
    """(words,) int64, offset of the first byte."""
    ends: Positions
    """(words,) int64, offset after the last byte."""


def words(data: Bytes, table: Bytes = LETTERS_AND_DIGITS) -> Words:
    """All words of a text.

    Args:
        data: (bytes,) uint8, UTF-8.
        table: `SPACED` or `LETTERS_AND_DIGITS`.
    """
    hashes = np.empty(len(data) // 2 + 1, dtype=np.uint64)  # each word and its separator take at least two bytes
    starts = np.empty(len(hashes), dtype=np.int64)
    ends = np.empty(len(hashes), dtype=np.int64)
    count = find_words(data, 0, len(data), table, hashes, starts, ends)
    return Words(hashes[:count].copy(), starts[:count].copy(), ends[:count].copy())


def ngram_hashes(word_hashes: Hashes, n: int) -> Hashes:
    """Hashes of all n-grams, in order: (words - n + 1,) uint64, empty if there are fewer than `n` words."""
    hashes = np.empty(max(0, len(word_hashes) - n + 1), dtype=np.uint64)
    if len(hashes):
        hash_ngrams(word_hashes, n, hashes)
    return hashes


def text_columns(column: pa.ChunkedArray | pa.Array) -> tuple[Bytes, Positions]:
    """Concatenated bytes of all texts, and the offsets of each text in them.

    Returns:
        (bytes,) uint8 and (texts + 1,) int64.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    array = array.cast(pa.large_string())
    _, offsets, data = array.buffers()
    if not len(array):
        return np.empty(0, dtype=np.uint8), np.zeros(1, dtype=np.int64)
    borders = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, dtype=np.uint8), borders


@compiled
def mix(value: np.uint64) -> np.uint64:
    """Finalizer of MurmurHash3 (fmix64): each bit of the input changes half of the output's bits."""
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@compiled
def _punctuation_width(data: Bytes, position: int, end: int) -> int:
    """Bytes of the character at `position` if it is in U+0080-00BF, U+2000-2FFF or U+3000-303F (punctuation, white
    space and symbols beyond ASCII); else 0."""
    if data[position] == 0xC2:
        return 2
    if data[position] == 0xE2 or (data[position] == 0xE3 and position + 1 < end and data[position + 1] == 0x80):
        return 3
    return 0


@compiled
def _space_width(data: Bytes, position: int, end: int) -> int:
    """Bytes of the character at `position` if it is beyond ASCII and white space to `str.split`; else 0."""
    first = data[position]
    if first == 0xC2:
        return 2 if position + 1 < end and (data[position + 1] == 0x85 or data[position + 1] == 0xA0) else 0
    if position + 2 >= end:
        return 0
    second, third = data[position + 1], data[position + 2]
    if first == 0xE2 and second == 0x80:
        return 3 if third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF else 0
    ogham = first == 0xE1 and second == 0x9A and third == 0x80
    mathematical = first == 0xE2 and second == 0x81 and third == 0x9F
    ideographic = first == 0xE3 and second == 0x80 and third == 0x80
    return 3 if ogham or mathematical or ideographic else 0


@compiled
def find_words(
    data: Bytes, begin: int, end: int, table: Bytes, hashes: Hashes, starts: Positions, ends: Positions
) -> int:
    """Fill in the words of `data[begin:end]` and return their number, at most `(end - begin) // 2 + 1`."""
    spaced = table[46] != 0  # A full stop is part of a word in `SPACED`.
    count = 0
    value = np.uint64(0)
    start = -1
    position = begin
    while position < end:
        byte = data[position]
        width = 1 if table[byte] == 0 else 0
        if byte >= 0xC2:
            width = _space_width(data, position, end) if spaced else _punctuation_width(data, position, end)
        alone = width == 0 and not spaced and 0xE3 <= byte <= 0xE9
        if (width or alone) and start >= 0:
            hashes[count], starts[count], ends[count] = mix(value), start, position
            count += 1
            start = -1
        if alone:
            value = np.uint64(0)
            width = min(3, end - position)
            for offset in range(position, position + width):
                value = value * PRIME + np.uint64(data[offset]) + _ONE
            hashes[count], starts[count], ends[count] = mix(value), position, position + width
            count += 1
        elif width == 0:
            width = 1
            if start < 0:
                start, value = position, np.uint64(0)
            value = value * PRIME + np.uint64(table[byte]) + _ONE
        position += width
    if start >= 0:
        hashes[count], starts[count], ends[count] = mix(value), start, end
        count += 1
    return count


@compiled
def hash_ngrams(word_hashes: Hashes, n: int, hashes: Hashes) -> None:
    """Fill in the n-grams' hashes: a rolling polynomial over the words' hashes mod 2^64, then mixed."""
    oldest = np.uint64(1)
    for _ in range(n):
        oldest *= PRIME
    value = np.uint64(0)
    for position in range(n):
        value = value * PRIME + word_hashes[position]
    hashes[0] = mix(value)
    for position in range(n, len(word_hashes)):
        value = value * PRIME + word_hashes[position] - word_hashes[position - n] * oldest
        hashes[position - n + 1] = mix(value)
