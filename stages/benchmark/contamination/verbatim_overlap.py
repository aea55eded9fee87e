"""How many words in a row of a benchmark item stand in the training text: one pass over the text for all items.

- `ItemWords`, `item_words`: the words of all items, and where every run of `SHORTEST` of them is
- `longest_runs`: for each item the longest run that a text holds

Words are compared by 64-bit hashes, without ASCII case and punctuation, as in decontamination
(`stages/common/word_hashes.py`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from stages.common.word_hashes import (
    LETTERS_AND_DIGITS,
    Bytes,
    Hashes,
    Positions,
    find_words,
    hash_ngrams,
    ngram_hashes,
    words,
)

SHORTEST = 5
"""Words: shorter runs are common property of a language and are not looked for."""


class ItemWords(NamedTuple):
    """The fields of all items, word by word, one after the other."""

    hashes: Hashes
    """(words,) uint64."""
    field_starts: Positions
    """(words,) int64, first word of the field that a word belongs to."""
    field_ends: Positions
    """(words,) int64, the word after its last."""
    items: Positions
    """(words,) int64, number of the item."""
    seeds: Hashes
    """(seeds,) uint64, sorted: the distinct runs of `SHORTEST` words within fields."""
    borders: Positions
    """(seeds + 1,) int64: where a seed's places begin and end."""
    places: Positions
    """Words at which seeds begin, seed by seed."""
    longest_fields: Positions
    """(items,) int64, words of each item's longest field."""


def item_words(items: Sequence[Sequence[str]]) -> ItemWords:
    """Take items apart.

    Args:
        items: the texts of each, such as question and passage; no run goes from one into the next.
    """
    fields = [field.encode() for texts in items for field in texts]
    spelled = words(np.frombuffer(b"\n".join(fields), dtype=np.uint8))
    field_bytes = np.cumsum(np.array([len(field) + 1 for field in fields], dtype=np.int64))
    field = np.searchsorted(field_bytes, spelled.starts, side="right")
    ends = np.searchsorted(field, np.arange(len(fields)), side="right")
    starts = np.searchsorted(field, np.arange(len(fields)), side="left")
    owner = np.repeat(np.arange(len(items)), [len(texts) for texts in items]).astype(np.int64)
    grams = ngram_hashes(spelled.hashes, SHORTEST)
    within = np.flatnonzero(np.arange(len(grams)) + SHORTEST <= ends[field[: len(grams)]])
    order = within[np.argsort(grams[within], kind="stable")]
    seeds, first = np.unique(grams[order], return_index=True)
    longest = np.zeros(len(items), dtype=np.int64)
    np.maximum.at(longest, owner, (ends - starts).astype(np.int64))
    return ItemWords(
        spelled.hashes, starts[field].astype(np.int64), ends[field].astype(np.int64), owner[field], seeds,
        np.append(first, len(order)).astype(np.int64), order.astype(np.int64), longest,
    )  # fmt: skip


def longest_runs(data: Bytes, offsets: Positions, items: ItemWords) -> npt.NDArray[np.int64]:
    """Words of each item's longest run that stands within one text; 0 where no run of `SHORTEST` does.

    Args:
        data: (bytes,) uint8, the texts one after the other, UTF-8.
        offsets: (texts + 1,) int64, where each begins and ends.
        items: what is looked for.

    Returns:
        (items,) int64.
    """
    longest = np.zeros(len(items.longest_fields), dtype=np.int64)
    _longest_runs(
        data, offsets, LETTERS_AND_DIGITS, items.hashes, items.field_starts, items.field_ends, items.items, items.seeds,
        items.borders, items.places, longest,
    )  # fmt: skip
    return longest


@numba.njit(cache=True)
def _longest_runs(
    data: Bytes,
    offsets: Positions,
    table: Bytes,
    sought: Hashes,
    field_starts: Positions,
    field_ends: Positions,
    owners: Positions,
    seeds: Hashes,
    borders: Positions,
    places: Positions,
    longest: Positions,
) -> None:
    most = 1
    for text in range(len(offsets) - 1):
        most = max(most, (offsets[text + 1] - offsets[text]) // 2 + 1)
    found = np.empty(most, dtype=np.uint64)
    starts, ends = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    grams = np.empty(most, dtype=np.uint64)
    for text in range(len(offsets) - 1):
        count = find_words(data, offsets[text], offsets[text + 1], table, found, starts, ends)
        if count < SHORTEST:
            continue
        hash_ngrams(found[:count], SHORTEST, grams[: count - SHORTEST + 1])
        for at in range(count - SHORTEST + 1):
            seed = np.searchsorted(seeds, grams[at])
            if seed == len(seeds) or seeds[seed] != grams[at]:
                continue
            for number in range(borders[seed], borders[seed + 1]):
                place = places[number]
                # A run that could begin a word earlier was followed from there.
                if at > 0 and place > field_starts[place] and sought[place - 1] == found[at - 1]:
                    continue
                length = SHORTEST
                most_words = min(count - at, field_ends[place] - place)
                while length < most_words and sought[place + length] == found[at + length]:
                    length += 1
                longest[owners[place]] = max(longest[owners[place]], length)
