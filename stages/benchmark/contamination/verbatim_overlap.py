"""Longest runs of consecutive words of benchmark items in the training text: one pass over the text for all items.

- `ItemWords`, `item_words`: the words of all items, indexed by every run of `SEED_WORDS` words
- `longest_runs`: the longest run of each item within a text

Words are compared by 64-bit hashes, ignoring case and punctuation, as in decontamination
(`stages/common/word_classes.py`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stages.common.compiled import compiled
from stages.common.word_classes import LETTERS_AND_DIGITS, WordTable
from stages.common.word_hashes import (
    Bytes,
    Hashes,
    Positions,
    find_words,
    hash_ngrams,
    ngram_hashes,
    words,
)

SEED_WORDS = 5
"""Length of the shortest run that is searched for; shorter ones are common phrases of a language."""


class ItemWords(NamedTuple):
    """The words of all fields of all items, concatenated, with an index of seeds."""

    hashes: Hashes
    """(words,) uint64."""
    field_starts: Positions
    """(words,) int64, index of the first word of the word's field."""
    field_ends: Positions
    """(words,) int64, index after the last word of the word's field."""
    items: Positions
    """(words,) int64, index of the word's item."""
    seeds: Hashes
    """(seeds,) uint64, sorted hashes of the distinct runs of `SEED_WORDS` words within fields."""
    seed_offsets: Positions
    """(seeds + 1,) int64, offsets of each seed in `seed_positions`."""
    seed_positions: Positions
    """int64, indices of the words at which seeds begin, seed by seed."""
    longest_fields: Positions
    """(items,) int64, words of each item's longest field."""


def item_words(items: Sequence[Sequence[str]]) -> ItemWords:
    """Split items into words and index them.

    Args:
        items: fields of each item, such as question and passage; no run crosses from one field into the next.
    """
    fields = [field.encode() for texts in items for field in texts]
    spelled = words(np.frombuffer(b"\n".join(fields), dtype=np.uint8))
    field_bytes = np.cumsum(np.array([len(field) + 1 for field in fields], dtype=np.int64))
    field = np.searchsorted(field_bytes, spelled.starts, side="right")
    ends = np.searchsorted(field, np.arange(len(fields)), side="right")
    starts = np.searchsorted(field, np.arange(len(fields)), side="left")
    item_of_field = np.repeat(np.arange(len(items)), [len(texts) for texts in items]).astype(np.int64)
    grams = ngram_hashes(spelled.hashes, SEED_WORDS)
    within = np.flatnonzero(np.arange(len(grams)) + SEED_WORDS <= ends[field[: len(grams)]])
    order = within[np.argsort(grams[within], kind="stable")]
    seeds, first = np.unique(grams[order], return_index=True)
    longest = np.zeros(len(items), dtype=np.int64)
    np.maximum.at(longest, item_of_field, (ends - starts).astype(np.int64))
    return ItemWords(
        spelled.hashes, starts[field].astype(np.int64), ends[field].astype(np.int64), item_of_field[field], seeds,
        np.append(first, len(order)).astype(np.int64), order.astype(np.int64), longest,
    )  # fmt: skip


def longest_runs(data: Bytes, offsets: Positions, items: ItemWords) -> npt.NDArray[np.int64]:
    """Length in words of each item's longest run within a single text; 0 if below `SEED_WORDS`.

    Args:
        data: (bytes,) uint8, the concatenated texts, UTF-8.
        offsets: (texts + 1,) int64, offsets of the texts in `data`.
        items: words of the items.

    Returns:
        (items,) int64.
    """
    longest = np.zeros(len(items.longest_fields), dtype=np.int64)
    _longest_runs(
        data, offsets, LETTERS_AND_DIGITS, items.hashes, items.field_starts, items.field_ends, items.items, items.seeds,
        items.seed_offsets, items.seed_positions, longest,
    )  # fmt: skip
    return longest


@compiled
def _longest_runs(
    data: Bytes,
    offsets: Positions,
    table: WordTable,
    item_hashes: Hashes,
    field_starts: Positions,
    field_ends: Positions,
    item_indices: Positions,
    seeds: Hashes,
    seed_offsets: Positions,
    seed_positions: Positions,
    longest: Positions,
) -> None:
    capacity = 1
    for text in range(len(offsets) - 1):
        capacity = max(capacity, (offsets[text + 1] - offsets[text]) // 2 + 1)
    hashes = np.empty(capacity, dtype=np.uint64)
    starts, ends = np.empty(capacity, dtype=np.int64), np.empty(capacity, dtype=np.int64)
    grams = np.empty(capacity, dtype=np.uint64)
    for text in range(len(offsets) - 1):
        count = find_words(data, offsets[text], offsets[text + 1], table, hashes, starts, ends)
        if count < SEED_WORDS:
            continue
        hash_ngrams(hashes[:count], SEED_WORDS, grams[: count - SEED_WORDS + 1])
        for word in range(count - SEED_WORDS + 1):
            seed = np.searchsorted(seeds, grams[word])
            if seed == len(seeds) or seeds[seed] != grams[word]:
                continue
            for index in range(seed_offsets[seed], seed_offsets[seed + 1]):
                position = seed_positions[index]
                # A run that extends to the preceding word was measured from there.
                if word > 0 and position > field_starts[position] and item_hashes[position - 1] == hashes[word - 1]:
                    continue
                length = SEED_WORDS
                max_length = min(count - word, field_ends[position] - position)
                while length < max_length and item_hashes[position + length] == hashes[word + length]:
                    length += 1
                item = item_indices[position]
                longest[item] = max(longest[item], length)
