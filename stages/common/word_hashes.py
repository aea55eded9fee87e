"""Words and word n-grams of UTF-8 text as 64-bit hashes, in compiled passes over the bytes; no n-gram is ever a string.

- `words`: hash, start and end of every word
- `ngram_hashes`: hashes of all n-grams of words
- `word_texts`: words as their hashes see them
- `snap`: moves the ends of a span inwards to word and character boundaries
- `text_columns`: bytes and offsets of an Arrow string column, without copying

Near-duplicate detection, decontamination, overlap and the repetition rules compare such hashes. `word_classes.py` says
what a word is; case is ignored in every script.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.common.compiled import compiled
from stages.common.word_classes import (
    CLOSING,
    FOLD_BITS,
    IGNORED,
    LETTER,
    LETTERS_AND_DIGITS,
    PREFIX,
    SEPARATOR,
    STACKER,
    UNIT,
    WordTable,
)

Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

PRIME = np.uint64(0x9E3779B97F4A7C15)
"""Multiplier of the polynomial hash: odd, near 2^64 over the golden ratio (Knuth, TAOCP 3, 6.4)."""
_ONE = np.uint64(1)
_AFTER_LETTERS = np.uint32((LETTER + 1) << FOLD_BITS)
_FOLD_MASK = np.uint32((1 << FOLD_BITS) - 1)
_OPENING, _RUN, _CLUSTER, _CLOSED = range(4)
"""State of a word: so far only what joins whatever follows, a run of letters, a unit, or complete."""


class Words(NamedTuple):
    """The words of one text."""

    hashes: Hashes
    """(words,) uint64, equal for words that differ only in case, invisible characters and optional marks."""
    starts: Positions
    """(words,) int64, offset of the first byte."""
    ends: Positions
    """(words,) int64, offset after the last byte."""


def words(data: Bytes, table: WordTable = LETTERS_AND_DIGITS) -> Words:
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


def word_texts(
    data: Bytes,
    starts: Positions,
    ends: Positions,
    table: WordTable = LETTERS_AND_DIGITS,
    *,
    limit: int = 100,
    group: int = 1,
) -> list[str]:
    """Case-folded words without what their hashes ignore: words of the same hash have the same text.

    Args:
        data: (bytes,) uint8, UTF-8.
        starts: (words,) int64, offsets of the words' first bytes.
        ends: (words,) int64, offsets after the words.
        table: table by which `words` found them.
        limit: characters after which a word is cut.
        group: words that are joined to a text, with spaces between them.
    """
    points = np.empty(int(np.minimum(ends - starts, limit).sum()) + len(starts), dtype="<u4")
    offsets = np.zeros(len(starts) + 1, dtype=np.int64)
    _fold_words(data, starts, ends, table, limit, points, offsets)
    text, borders = points[: offsets[-1]].tobytes().decode("utf-32-le"), offsets[::group].tolist()
    return [text[begin : end - 1] for begin, end in pairwise(borders)]


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
def _width(lead: int) -> int:
    """Bytes of the character that begins with the byte `lead`; 1 for bytes that begin none."""
    if lead < 0xC0:
        return 1
    return 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


@compiled
def _entry(data: Bytes, position: int, width: int, table: WordTable) -> np.uint32:
    """Entry of the character of `width` bytes at `position`."""
    if width == 1:
        return np.uint32(table[data[position]])
    point = np.int64(data[position]) & np.int64(0x7F >> width)
    for offset in range(1, width):
        point = (point << 6) | (np.int64(data[position + offset]) & 0x3F)
    if point < len(table):
        return np.uint32(table[point])
    return np.uint32((IGNORED if 0xE0000 <= point < 0xE1000 else LETTER) << FOLD_BITS | point)


@compiled
def find_words(
    data: Bytes, begin: int, end: int, table: WordTable, hashes: Hashes, starts: Positions, ends: Positions
) -> int:
    """Fill in the words of `data[begin:end]` and return their number, at most `(end - begin) // 2 + 1`."""
    spaced = table[46] != SEPARATOR  # A full stop is part of a word in `SPACED`.
    count, start, state, position = 0, -1, _OPENING, begin
    value = np.uint64(0)
    while position < end:
        byte = data[position]
        if byte < 0x80 and state <= _RUN:  # the common case, in short
            entry = table[byte]
            if entry != SEPARATOR:
                start = position if start < 0 else start
                value = value * PRIME + np.uint64(entry & _FOLD_MASK) + _ONE
                state = _RUN if entry < _AFTER_LETTERS else state
            elif start >= 0:
                hashes[count], starts[count], ends[count] = mix(value), start, position
                count += 1
                start, state, value = -1, _OPENING, np.uint64(0)
            position += 1
            continue
        width = min(_width(byte), end - position)
        entry = _entry(data, position, width, table)
        kind = entry >> np.uint32(FOLD_BITS)
        lowest = LETTER if state == _CLUSTER else UNIT
        breaks = entry == SEPARATOR or state == _CLOSED or (state != _OPENING and lowest <= kind <= PREFIX)
        if breaks and start >= 0:
            hashes[count], starts[count], ends[count] = mix(value), start, position
            count += 1
            start, state, value = -1, _OPENING, np.uint64(0)
        if entry != SEPARATOR and (spaced or kind != IGNORED):
            start = position if start < 0 else start
            if kind != IGNORED:
                value = value * PRIME + np.uint64(entry & _FOLD_MASK) + _ONE
            if kind == LETTER:
                state = _RUN
            elif kind == UNIT:
                state = _CLUSTER
            elif kind in (PREFIX, STACKER):
                state = _OPENING
            elif kind == CLOSING:
                state = _CLOSED
        position += width
    if start >= 0:
        hashes[count], starts[count], ends[count] = mix(value), start, end
        count += 1
    return count


@compiled
def _fold_words(
    data: Bytes,
    starts: Positions,
    ends: Positions,
    table: WordTable,
    limit: int,
    points: npt.NDArray[np.uint32],
    offsets: Positions,
) -> None:
    """Fill in the code points of each word as `find_words` hashes them, each followed by a space, and their offsets."""
    size = 0
    for word in range(len(starts)):
        position, last = starts[word], size + limit
        while position < ends[word] and size < last:
            width = min(_width(data[position]), ends[word] - position)
            entry = _entry(data, position, width, table)
            if entry >> np.uint32(FOLD_BITS) != IGNORED:
                points[size] = entry & _FOLD_MASK
                size += 1
            position += width
        points[size] = 0x20
        size += 1
        offsets[word + 1] = size


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


@compiled
def snap(data: Bytes, starts: Positions, ends: Positions, start: int, end: int) -> tuple[int, int]:
    """Move the ends of a span inwards so that they split no word and no character.

    Args:
        data: (bytes,) uint8, UTF-8.
        starts: (words,) int64, offsets of the words' first bytes.
        ends: (words,) int64, offsets after the words.
        start: offset of the span's first byte.
        end: offset after the span.

    Returns:
        The new start and end; start >= end if nothing is left.
    """
    word = np.searchsorted(ends, start, side="right")
    if word < len(starts) and starts[word] < start:
        start = ends[word]
    while start < len(data) and data[start] & 0xC0 == 0x80:
        start += 1
    word = np.searchsorted(ends, end, side="right")
    if word < len(starts) and starts[word] < end:
        end = starts[word]
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end -= 1
    return start, end
