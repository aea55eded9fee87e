"""The n-grams of all benchmark items as hashes, and the pass over the text that looks them up.

- `build_index`: one partition writes the index; `load_index` reads it, once per process
- `find_ngrams`: where texts hold an n-gram of any item
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from infra.store.filesystem import Folder
from infra.workers.partitions import PartitionResult, PartitionWriter
from stages.common.word_hashes import (
    LETTERS_AND_DIGITS,
    PRIME,
    Bytes,
    Hashes,
    Positions,
    find_words,
    hash_ngrams,
    mix,
    ngram_hashes,
    words,
)
from stages.dedup.config import DecontaminationConfig
from stages.dedup.cuts import snap
from stages.dedup.decontamination.benchmark_items import BenchmarkFile, Item, read_items

DECIDING, REPORTED = 0, 1
"""Which of the two lengths: the one that acts on documents, and the one that is only reported."""
ITEM_NAMES = pa.schema([("benchmark", pa.string()), ("item", pa.string())])
FILTER_BITS = 16
"""Per n-gram in the filter before the search: one look-up in sixteen of other n-grams goes on to the search."""


class BitFilter(NamedTuple):
    """A bit is set for every hash of a set, and for few others."""

    bits: Hashes
    """Bit `hash >> shift`, in words of 64."""
    shift: np.uint64


class NgramIndex(NamedTuple):
    """Distinct n-grams of any length, and the entries (item x 2 + which length) that each belongs to."""

    hashes: Hashes
    """(ngrams,) uint64, sorted."""
    lengths: Positions
    """The numbers of words that n-grams have."""
    borders: Positions
    """(ngrams + 1,) int64: where an n-gram's entries begin and end."""
    entries: Positions
    """Entries of all n-grams, sorted within each."""
    filter: BitFilter
    """Of the n-grams."""
    shortest: int
    """The least number of words of an n-gram."""
    beginnings: BitFilter
    """Of the first `shortest` words of every n-gram: one look-up a word decides for all lengths."""


class Ngrams(NamedTuple):
    """N-grams of items found in texts, by text and position."""

    texts: Positions
    """Number of the text."""
    ngrams: Positions
    """Number of the n-gram in the index."""
    starts: Positions
    """First byte in the text, of the n-gram and its window."""
    ends: Positions
    """Byte after it."""


def build_index(config: DecontaminationConfig, files: Sequence[BenchmarkFile], out: PartitionWriter) -> None:
    """Write `items.arrow`, `ngrams.arrow`, `entries.arrow` and `beginnings.arrow`."""
    names: list[dict[str, str]] = []
    found = [_Sought(*np.empty((2, 0), np.uint64), *np.empty((2, 0), np.int64))]
    for file in files:
        items = read_items(file)
        found += _file_ngrams(items, config, len(names))
        names += [{"benchmark": file.name, "item": item.id} for item in items]
    hashes, beginnings, entries, lengths = (np.concatenate(columns) for columns in zip(*found, strict=True))
    order = np.lexsort((entries, hashes))
    hashes, entries, lengths = hashes[order], entries[order], lengths[order]
    is_first = np.concatenate([[True], hashes[1:] != hashes[:-1]])[: len(hashes)]
    is_other = is_first | np.concatenate([[True], entries[1:] != entries[:-1]])[: len(entries)]
    number = np.cumsum(is_first) - 1
    out.write_table("items.arrow", pa.Table.from_pylist(names, ITEM_NAMES))
    out.write_table("ngrams.arrow", pa.table({"hash": hashes[is_first], "length": lengths[is_first]}))
    out.write_table("entries.arrow", pa.table({"ngram": number[is_other], "entry": entries[is_other]}))
    out.write_table("beginnings.arrow", pa.table({"hash": np.unique(beginnings)}))


def _shortest(config: DecontaminationConfig) -> int:
    return min(config.min_words, config.also_report or config.ngram)


class _Sought(NamedTuple):
    """N-grams of items, one value each."""

    hashes: Hashes
    beginnings: Hashes
    entries: Positions
    lengths: Positions


def _file_ngrams(items: Sequence[Item], config: DecontaminationConfig, first_item: int) -> list[_Sought]:
    """The n-grams of a file's items, none of them across two fields.

    An item whose fields are all shorter than `ngram` words is sought by its whole fields of `min_words` and more.
    """
    fields = [field.encode() for item in items for field in item.fields]
    spelled = words(np.frombuffer(b"\n".join(fields), dtype=np.uint8))
    ends = np.cumsum(np.array([len(one) + 1 for one in fields], dtype=np.int64))
    field = np.searchsorted(ends, spelled.starts, side="right")
    many = np.array([len(one.fields) for one in items], dtype=np.int64)
    item = np.repeat(np.arange(len(items)), many)[field]
    words_in_field = np.bincount(field, minlength=len(fields))[field]
    longest = np.zeros(len(items), dtype=np.int64)
    np.maximum.at(longest, item, words_in_field)
    is_short = longest[item] < config.ngram
    sought = [(DECIDING, config.ngram, ~is_short)]
    sought += [(DECIDING, n, is_short & (words_in_field == n)) for n in range(config.min_words, config.ngram)]
    if config.also_report is not None:
        sought.append((REPORTED, config.also_report, np.ones_like(is_short)))
    found = []
    for which, length, allowed in sought:
        hashes = ngram_hashes(spelled.hashes, length)
        count = len(hashes)
        within = np.flatnonzero(allowed[:count] & (field[:count] == field[len(field) - count :]))
        beginnings = ngram_hashes(spelled.hashes, _shortest(config))[within]
        entries = 2 * (first_item + item[within]) + which
        found.append(_Sought(hashes[within], beginnings, entries, np.full(len(within), length)))
    return found


def load_index(built: PartitionResult, config: DecontaminationConfig) -> NgramIndex:
    """What `build_index` wrote."""
    parts = {entry.path: entry.part or "" for entry in built.marker.files}
    paths = [parts[f"{name}.arrow"] for name in ("ngrams", "entries", "beginnings")]
    return _load(built.folder, *paths, _shortest(config))


@functools.lru_cache(maxsize=1)
def _load(folder: Folder, ngrams: str, entries: str, beginnings: str, shortest: int) -> NgramIndex:
    """Once per process: an index of many benchmarks is as large as a partition."""
    tables = []
    for path in (ngrams, entries, beginnings):
        with folder.open(path) as file:
            tables.append(pa.ipc.open_file(file).read_all())
    hashes, entry_ngrams = tables[0].column("hash").to_numpy(), tables[1].column("ngram").to_numpy()
    return NgramIndex(
        hashes=hashes,
        lengths=np.unique(tables[0].column("length").to_numpy()),
        borders=np.searchsorted(entry_ngrams, np.arange(len(hashes) + 1)),
        entries=tables[1].column("entry").to_numpy(),
        filter=_filter(hashes),
        shortest=shortest,
        beginnings=_filter(tables[2].column("hash").to_numpy()),
    )


def _filter(hashes: Hashes) -> BitFilter:
    size = max(16, (FILTER_BITS * len(hashes)).bit_length())
    bits = np.zeros(2 ** (size - 6), dtype=np.uint64)
    places = hashes >> np.uint64(64 - size)
    np.bitwise_or.at(bits, (places >> np.uint64(6)).astype(np.int64), np.uint64(1) << (places & np.uint64(63)))
    return BitFilter(bits, np.uint64(64 - size))


def deciding_ngrams(index: NgramIndex) -> npt.NDArray[np.bool_]:
    """(ngrams,) which n-grams act on documents; the others are only reported."""
    deciding = np.zeros(len(index.hashes), dtype=np.bool_)
    ngram_of = np.repeat(np.arange(len(index.hashes)), np.diff(index.borders))
    deciding[ngram_of[index.entries % 2 == DECIDING]] = True
    return deciding


def find_ngrams(data: Bytes, offsets: Positions, index: NgramIndex, window: int) -> Ngrams:
    """Every place where a text holds an n-gram of the index.

    Args:
        data: (bytes,) uint8, the texts one after the other, UTF-8.
        offsets: (texts + 1,) int64, where each begins and ends.
        index: what to look for.
        window: characters to add on both sides; the ends are moved inwards again to where they break no word.
    """
    return Ngrams(*_find(data, offsets, index, window))


@numba.njit(cache=True)
def _find(
    data: Bytes, offsets: Positions, index: NgramIndex, window: int
) -> tuple[Positions, Positions, Positions, Positions]:
    longest = np.max(offsets[1:] - offsets[:-1]) // 2 + 2 if len(offsets) > 1 else 0
    hashes, grams = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    starts, ends = np.empty(longest, np.int64), np.empty(longest, np.int64)
    found = np.empty((4, 1024), np.int64)
    count = 0
    for text in range(len(offsets) - 1):
        this = data[offsets[text] : offsets[text + 1]]
        many = find_words(this, 0, len(this), LETTERS_AND_DIGITS, hashes, starts, ends)
        if many < index.shortest:
            continue
        hash_ngrams(hashes[:many], index.shortest, grams)
        for word in range(many - index.shortest + 1):
            if not _may_hold(index.beginnings, grams[word]):
                continue
            for length in index.lengths:
                number = (
                    _look_up(_ngram(hashes[word : min(many, word + length)]), index) if word + length <= many else -1
                )
                if number >= 0:
                    if count == found.shape[1]:
                        found = np.concatenate((found, np.empty_like(found)), axis=1)
                    last = word + length - 1
                    start, end = _window(this, starts[:many], ends[:many], starts[word], ends[last], window)
                    found[0, count], found[1, count], found[2, count], found[3, count] = text, number, start, end
                    count += 1
    return found[0, :count].copy(), found[1, :count].copy(), found[2, :count].copy(), found[3, :count].copy()


@numba.njit(cache=True)
def _ngram(word_hashes: Hashes) -> np.uint64:
    """Hash of one n-gram, as `hash_ngrams` has it."""
    value = np.uint64(0)
    for one in word_hashes:
        value = value * PRIME + one
    return mix(value)


@numba.njit(cache=True)
def _may_hold(some: BitFilter, value: np.uint64) -> bool:
    place = value >> some.shift
    return bool((some.bits[place >> np.uint64(6)] >> (place & np.uint64(63))) & np.uint64(1))


@numba.njit(cache=True)
def _look_up(value: np.uint64, index: NgramIndex) -> int:
    """Number of an n-gram in the index, or -1."""
    if not _may_hold(index.filter, value):
        return -1
    position = int(np.searchsorted(index.hashes, value))
    return position if position < len(index.hashes) and index.hashes[position] == value else -1


@numba.njit(cache=True)
def _window(data: Bytes, starts: Positions, ends: Positions, start: int, end: int, characters: int) -> tuple[int, int]:
    """The span with so many characters more on both sides, on word borders."""
    for _ in range(characters):
        start -= 1
        while start > 0 and data[start] & 0xC0 == 0x80:
            start -= 1
        if start <= 0:
            start = 0
            break
    for _ in range(characters):
        if end >= len(data):
            break
        end += 1
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end += 1
    return snap(data, starts, ends, start, end)
