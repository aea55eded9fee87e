"""Gopher's repetition measures over hashes: duplicate lines and paragraphs, and repeated word n-grams.

Rae et al. 2021 (2112.11446), A.1.1, as interpreted by datatrove and DCLM. No n-gram is ever a string: its hash is the
key, and its length is computed from prefix sums of the words' lengths. A duplicate is any occurrence but the first.
"""

import numpy as np
import numpy.typing as npt

from stages.common.compiled import compiled
from stages.common.word_hashes import PRIME, Hashes, Positions, hash_ngrams, mix

NGRAMS = (2, 3, 4, 5, 6, 7, 8, 9, 10)
"""Sizes of the n-grams that Gopher's rules measure, in words."""
_LARGEST_TOP_NGRAM = 4
"""Up to this n the most frequent n-gram is measured; above it, all duplicate n-grams."""


@compiled
def _slot(table: Hashes, key: np.uint64) -> np.int64:
    """Slot of `key` in an open-addressing table, or the empty slot where it belongs; 0 means empty."""
    mask = np.int64(len(table) - 1)
    slot = np.int64(key) & mask
    while table[slot] != 0 and table[slot] != key:
        slot = (slot + 1) & mask
    return slot


@compiled
def _table_size(keys: int) -> int:
    """Slots of a table that `keys` keys fill at most by half: a power of two."""
    size = 16
    while size < 2 * keys:
        size *= 2
    return size


@compiled
def count_duplicates(
    line_hashes: Hashes, offsets: Positions, characters: Positions, paragraph_of: Positions, totals: Positions
) -> None:
    """Count lines and paragraphs that occurred earlier in the document.

    Args:
        line_hashes: (lines,) uint64.
        offsets: (lines,) int64, characters of the text that precede each line.
        characters: (lines,) int64, length of each line.
        paragraph_of: (lines,) int64, index of the paragraph.
        totals: (4,) int64, zeroed; incremented by the numbers of duplicate lines and duplicate paragraphs, and the
            characters in duplicate lines and in duplicate paragraphs.
    """
    table = np.zeros(_table_size(len(line_hashes)), dtype=np.uint64)
    paragraphs = np.zeros(_table_size(len(line_hashes)), dtype=np.uint64)
    value, first = np.uint64(0), 0
    for line in range(len(line_hashes)):
        key = max(line_hashes[line], np.uint64(1))
        slot = _slot(table, key)
        if table[slot] == key:
            totals[0] += 1
            totals[2] += characters[line]
        table[slot] = key
        value = value * PRIME + key
        if line + 1 == len(line_hashes) or paragraph_of[line + 1] != paragraph_of[line]:
            key = max(mix(value), np.uint64(1))
            slot = _slot(paragraphs, key)
            if paragraphs[slot] == key:
                totals[1] += 1
                totals[3] += offsets[line] + characters[line] - offsets[first]
            paragraphs[slot] = key
            value, first = np.uint64(0), line + 1


@compiled
def count_repeated_ngrams(word_hashes: Hashes, word_characters: Positions, totals: Positions) -> None:
    """Count characters in repeated n-grams.

    Args:
        word_hashes: (words,) uint64.
        word_characters: (words,) int64, length of each word.
        totals: (9,) int64, zeroed; set to length times occurrences of the most frequent n-gram (of ties the first, its
            words joined by single spaces) for n from 2 to 4, and to the characters of the words of all duplicate
            n-grams, each counted once, for n from 5 to 10.
    """
    count = len(word_hashes)
    offsets = np.zeros(count + 1, dtype=np.int64)
    for word in range(count):
        offsets[word + 1] = offsets[word] + word_characters[word]
    table = np.zeros(_table_size(count), dtype=np.uint64)
    occurrences = np.zeros(len(table), dtype=np.int32)
    slots = np.empty(count, dtype=np.int64)
    ngrams = np.empty(count, dtype=np.uint64)
    for n in NGRAMS:
        if count < n:
            return
        keys = ngrams[: count - n + 1]
        hash_ngrams(word_hashes, n, keys)
        table[:] = 0
        if n <= _LARGEST_TOP_NGRAM:
            occurrences[:] = 0
            totals[n - 2] = _most_frequent(keys, n, offsets, table, occurrences, slots)
        else:
            totals[n - 2] = _duplicates(keys, n, offsets, table)
            if totals[n - 2] == 0:  # Then there is no longer duplicate either.
                return


@compiled
def _most_frequent(
    keys: Hashes, n: int, offsets: Positions, table: Hashes, occurrences: npt.NDArray[np.int32], slots: Positions
) -> int:
    highest = 0
    for position in range(len(keys)):
        key = max(keys[position], np.uint64(1))
        slot = _slot(table, key)
        table[slot] = key
        occurrences[slot] += 1
        slots[position] = slot
        highest = max(highest, occurrences[slot])
    for position in range(len(keys)):
        if occurrences[slots[position]] == highest:
            return int(highest * (offsets[position + n] - offsets[position] + n - 1))
    return 0


@compiled
def _duplicates(keys: Hashes, n: int, offsets: Positions, table: Hashes) -> int:
    """Characters in duplicate n-grams, from left to right; a duplicate is skipped as a whole, so none counts twice."""
    characters, position = 0, 0
    while position < len(keys):
        key = max(keys[position], np.uint64(1))
        slot = _slot(table, key)
        if table[slot] == key:
            characters += offsets[position + n] - offsets[position]
            position += n
        else:
            table[slot] = key
            position += 1
    return characters
