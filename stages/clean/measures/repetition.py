"""Gopher's repetition measures over hashes: lines and paragraphs that stood before, and repeated word n-grams.

Rae et al. 2021 (2112.11446), A.1.1, with the reading that datatrove and DCLM share. No n-gram is ever a string: its
hash is the key, and its length comes from the sums of its words' lengths.
"""

import numba
import numpy as np
import numpy.typing as npt

from stages.common.word_hashes import PRIME, Hashes, Positions, hash_ngrams, mix

NGRAMS = (2, 3, 4, 5, 6, 7, 8, 9, 10)
"""Words of the n-grams that Gopher's rules measure."""
_TOP = 4
"""Up to this n the commonest n-gram is measured; above it, all that stood before."""


@numba.njit(cache=True)
def _slot(table: Hashes, key: np.uint64) -> np.int64:
    """Place of `key` in a table with open addressing, or the empty place where it belongs; 0 means empty."""
    mask = np.int64(len(table) - 1)
    place = np.int64(key) & mask
    while table[place] != 0 and table[place] != key:
        place = (place + 1) & mask
    return place


@numba.njit(cache=True)
def _size(keys: int) -> int:
    """Places for a table of at most half as many keys: a power of two."""
    size = 16
    while size < 2 * keys:
        size *= 2
    return size


@numba.njit(cache=True)
def duplicate_parts(
    line_hashes: Hashes, offsets: Positions, characters: Positions, paragraph_of: Positions, found: Positions
) -> None:
    """Count what stood before in the document.

    Args:
        line_hashes: (lines,) uint64.
        offsets: (lines,) int64, characters of the text before each line.
        characters: (lines,) int64, of each line.
        paragraph_of: (lines,) int64, number of the paragraph, from 0.
        found: gets lines, paragraphs, characters of such lines, characters of such paragraphs.
    """
    table = np.zeros(_size(len(line_hashes)), dtype=np.uint64)
    paragraphs = np.zeros(_size(len(line_hashes)), dtype=np.uint64)
    value, first = np.uint64(0), 0
    for line in range(len(line_hashes)):
        key = max(line_hashes[line], np.uint64(1))
        place = _slot(table, key)
        if table[place] == key:
            found[0] += 1
            found[2] += characters[line]
        table[place] = key
        value = value * PRIME + key
        if line + 1 == len(line_hashes) or paragraph_of[line + 1] != paragraph_of[line]:
            key = max(mix(value), np.uint64(1))
            place = _slot(paragraphs, key)
            if paragraphs[place] == key:
                found[1] += 1
                found[3] += offsets[line] + characters[line] - offsets[first]
            paragraphs[place] = key
            value, first = np.uint64(0), line + 1


@numba.njit(cache=True)
def repeated_ngrams(word_hashes: Hashes, word_characters: Positions, found: Positions) -> None:
    """Characters in repeated n-grams.

    Args:
        word_hashes: (words,) uint64.
        word_characters: (words,) int64.
        found: (9,) int64, zeroed; for n from 2 to 4 it gets length times occurrences of the commonest n-gram (the
            first of them, its words joined by single spaces), for n from 5 to 10 the characters of the words of all
            n-grams that stood before, none counted twice.
    """
    count = len(word_hashes)
    before = np.zeros(count + 1, dtype=np.int64)
    for word in range(count):
        before[word + 1] = before[word] + word_characters[word]
    table = np.zeros(_size(count), dtype=np.uint64)
    times = np.zeros(len(table), dtype=np.int32)
    places = np.empty(count, dtype=np.int64)
    ngrams = np.empty(count, dtype=np.uint64)
    for n in NGRAMS:
        if count < n:
            return
        keys = ngrams[: count - n + 1]
        hash_ngrams(word_hashes, n, keys)
        table[:] = 0
        if n <= _TOP:
            times[:] = 0
            found[n - 2] = _commonest(keys, n, before, table, times, places)
        else:
            found[n - 2] = _stood_before(keys, n, before, table)
            if found[n - 2] == 0:  # Then no longer n-gram stood before either.
                return


@numba.njit(cache=True)
def _commonest(
    keys: Hashes, n: int, before: Positions, table: Hashes, times: npt.NDArray[np.int32], places: Positions
) -> int:
    most = 0
    for position in range(len(keys)):
        key = max(keys[position], np.uint64(1))
        place = _slot(table, key)
        table[place] = key
        times[place] += 1
        places[position] = place
        most = max(most, times[place])
    for position in range(len(keys)):
        if times[places[position]] == most:
            return int(most * (before[position + n] - before[position] + n - 1))
    return 0


@numba.njit(cache=True)
def _stood_before(keys: Hashes, n: int, before: Positions, table: Hashes) -> int:
    """From left to right; an n-gram that stood before is passed over whole, so no character counts twice."""
    characters, position = 0, 0
    while position < len(keys):
        key = max(keys[position], np.uint64(1))
        place = _slot(table, key)
        if table[place] == key:
            characters += before[position + n] - before[position]
            position += n
        else:
            table[place] = key
            position += 1
    return characters
