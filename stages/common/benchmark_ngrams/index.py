"""Index of the n-grams of all benchmark items as hashes, and the pass over the text that looks them up.

- `build_index`: one partition writes the index; `load_index` reads it, once per process
- `find_ngrams`: occurrences of the items' n-grams in texts
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from infra.store.filesystem import Folder
from infra.workers.partitions import PartitionResult, PartitionWriter
from stages.common.benchmark_ngrams.config import NgramConfig
from stages.common.benchmark_ngrams.items import BenchmarkFile, Item, read_items
from stages.common.compiled import compiled
from stages.common.word_classes import LETTERS_AND_DIGITS, WordTable
from stages.common.word_hashes import (
    PRIME,
    Bytes,
    Hashes,
    Positions,
    find_words,
    hash_ngrams,
    mix,
    ngram_hashes,
    snap,
    words,
)

DECIDING, REPORTED = 0, 1
"""The two n-gram lengths: the one that acts on documents, and the one that is only reported."""
ITEM_NAMES = pa.schema([("benchmark", pa.string()), ("item", pa.string())])
FILTER_BITS = 16
"""Bits per n-gram of the filter before the search: one in sixteen other n-grams passes it."""


class BitFilter(NamedTuple):
    """One-hash Bloom filter: a bit is set for each hash of a set."""

    bits: Hashes
    """Bit `hash >> shift`, in 64-bit words."""
    shift: np.uint64


class NgramIndex(NamedTuple):
    """Distinct n-grams of all lengths, and their entries (2 x item + `DECIDING` or `REPORTED`)."""

    hashes: Hashes
    """(ngrams,) uint64, sorted."""
    lengths: Positions
    """Distinct lengths of the n-grams, in words."""
    borders: Positions
    """(ngrams + 1,) int64, offsets of each n-gram's entries."""
    entries: Positions
    """Entries of all n-grams, sorted within each n-gram."""
    filter: BitFilter
    """Filter of the n-grams' hashes."""
    shortest: int
    """Minimum length of an n-gram, in words."""
    beginnings: BitFilter
    """Filter of the first `shortest` words of every n-gram: one lookup per word covers all lengths."""


class Ngrams(NamedTuple):
    """Occurrences of items' n-grams in texts, by text and position."""

    texts: Positions
    """Index of the text."""
    ngrams: Positions
    """Index of the n-gram in the `NgramIndex`."""
    starts: Positions
    """Offset in the text of the n-gram with its window."""
    ends: Positions
    """Offset after it."""


def build_index(config: NgramConfig, files: Sequence[BenchmarkFile], out: PartitionWriter) -> None:
    """Write `items.arrow`, `ngrams.arrow`, `entries.arrow` and `beginnings.arrow`."""
    names: list[dict[str, str]] = []
    ngrams = [_ItemNgrams(*np.empty((2, 0), np.uint64), *np.empty((2, 0), np.int64))]
    for file in files:
        items = read_items(file)
        ngrams += _file_ngrams(items, config, len(names))
        names += [{"benchmark": file.name, "item": item.id} for item in items]
    hashes, beginnings, entries, lengths = (np.concatenate(columns) for columns in zip(*ngrams, strict=True))
    order = np.lexsort((entries, hashes))
    hashes, entries, lengths = hashes[order], entries[order], lengths[order]
    is_first = np.concatenate([[True], hashes[1:] != hashes[:-1]])[: len(hashes)]
    is_new_entry = is_first | np.concatenate([[True], entries[1:] != entries[:-1]])[: len(entries)]
    number = np.cumsum(is_first) - 1
    out.write_table("items.arrow", pa.Table.from_pylist(names, ITEM_NAMES))
    out.write_table("ngrams.arrow", pa.table({"hash": hashes[is_first], "length": lengths[is_first]}))
    out.write_table("entries.arrow", pa.table({"ngram": number[is_new_entry], "entry": entries[is_new_entry]}))
    out.write_table("beginnings.arrow", pa.table({"hash": np.unique(beginnings)}))


def _shortest(config: NgramConfig) -> int:
    return min(config.min_words, config.also_report or config.ngram)


class _ItemNgrams(NamedTuple):
    """N-grams of items, a value per n-gram."""

    hashes: Hashes
    beginnings: Hashes
    entries: Positions
    lengths: Positions


def _file_ngrams(items: Sequence[Item], config: NgramConfig, first_item: int) -> list[_ItemNgrams]:
    """N-grams of a file's items; none spans two fields.

    An item whose fields are all shorter than `ngram` words is matched by its whole fields of `min_words` and more.
    """
    fields = [field.encode() for item in items for field in item.fields]
    split = words(np.frombuffer(b"\n".join(fields), dtype=np.uint8))
    ends = np.cumsum(np.array([len(encoded) + 1 for encoded in fields], dtype=np.int64))
    field = np.searchsorted(ends, split.starts, side="right")
    fields_per_item = np.array([len(item.fields) for item in items], dtype=np.int64)
    item = np.repeat(np.arange(len(items)), fields_per_item)[field]
    words_in_field = np.bincount(field, minlength=len(fields))[field]
    longest = np.zeros(len(items), dtype=np.int64)
    np.maximum.at(longest, item, words_in_field)
    is_short = longest[item] < config.ngram
    selections = [(DECIDING, config.ngram, ~is_short)]
    selections += [(DECIDING, n, is_short & (words_in_field == n)) for n in range(config.min_words, config.ngram)]
    if config.also_report is not None:
        selections.append((REPORTED, config.also_report, np.ones_like(is_short)))
    ngrams = []
    for kind, length, allowed in selections:
        hashes = ngram_hashes(split.hashes, length)
        count = len(hashes)
        within = np.flatnonzero(allowed[:count] & (field[:count] == field[len(field) - count :]))
        beginnings = ngram_hashes(split.hashes, _shortest(config))[within]
        entries = 2 * (first_item + item[within]) + kind
        ngrams.append(_ItemNgrams(hashes[within], beginnings, entries, np.full(len(within), length)))
    return ngrams


def load_index(built: PartitionResult, config: NgramConfig) -> NgramIndex:
    """Load the index that `build_index` wrote."""
    parts = {entry.path: entry.part or "" for entry in built.marker.files}
    paths = [parts[f"{name}.arrow"] for name in ("ngrams", "entries", "beginnings")]
    return _load(built.folder, *paths, _shortest(config))


@functools.lru_cache(maxsize=1)
def _load(folder: Folder, ngrams: str, entries: str, beginnings: str, shortest: int) -> NgramIndex:
    """Load once per process: an index of many benchmarks is as large as a partition."""
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
    positions = hashes >> np.uint64(64 - size)
    np.bitwise_or.at(bits, (positions >> np.uint64(6)).astype(np.int64), np.uint64(1) << (positions & np.uint64(63)))
    return BitFilter(bits, np.uint64(64 - size))


def deciding_ngrams(index: NgramIndex) -> npt.NDArray[np.bool_]:
    """Mask (ngrams,) of the n-grams that act on documents; the others are only reported."""
    deciding = np.zeros(len(index.hashes), dtype=np.bool_)
    ngram_of = np.repeat(np.arange(len(index.hashes)), np.diff(index.borders))
    deciding[ngram_of[index.entries % 2 == DECIDING]] = True
    return deciding


def find_ngrams(data: Bytes, offsets: Positions, index: NgramIndex, window: int) -> Ngrams:
    """Find all occurrences of the index's n-grams.

    Args:
        data: (bytes,) uint8, the concatenated texts, UTF-8.
        offsets: (texts + 1,) int64, offsets of the texts.
        index: n-grams to search for.
        window: characters to add on both sides; the ends are then moved inwards so that they split no word.
    """
    return Ngrams(*_find(data, offsets, LETTERS_AND_DIGITS, index, window))


@compiled
def _find(
    data: Bytes, offsets: Positions, table: WordTable, index: NgramIndex, window: int
) -> tuple[Positions, Positions, Positions, Positions]:
    longest = np.max(offsets[1:] - offsets[:-1]) // 2 + 2 if len(offsets) > 1 else 0
    hashes, grams = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    starts, ends = np.empty(longest, np.int64), np.empty(longest, np.int64)
    hits = np.empty((4, 1024), np.int64)
    count = 0
    for text in range(len(offsets) - 1):
        encoded = data[offsets[text] : offsets[text + 1]]
        word_count = find_words(encoded, 0, len(encoded), table, hashes, starts, ends)
        if word_count < index.shortest:
            continue
        hash_ngrams(hashes[:word_count], index.shortest, grams)
        for word in range(word_count - index.shortest + 1):
            if not _may_contain(index.beginnings, grams[word]):
                continue
            for length in index.lengths:
                if word + length > word_count:
                    continue
                number = _look_up(_ngram(hashes[word : word + length]), index)
                if number >= 0:
                    if count == hits.shape[1]:
                        hits = np.concatenate((hits, np.empty_like(hits)), axis=1)
                    start, end = starts[word], ends[word + length - 1]
                    start, end = _window(encoded, starts[:word_count], ends[:word_count], start, end, window)
                    hits[0, count], hits[1, count], hits[2, count], hits[3, count] = text, number, start, end
                    count += 1
    return hits[0, :count].copy(), hits[1, :count].copy(), hits[2, :count].copy(), hits[3, :count].copy()


@compiled
def _ngram(word_hashes: Hashes) -> np.uint64:
    """Hash of an n-gram, as `hash_ngrams` computes it."""
    value = np.uint64(0)
    for word_hash in word_hashes:
        value = value * PRIME + word_hash
    return mix(value)


@compiled
def _may_contain(filter_: BitFilter, value: np.uint64) -> bool:
    position = value >> filter_.shift
    return bool((filter_.bits[position >> np.uint64(6)] >> (position & np.uint64(63))) & np.uint64(1))


@compiled
def _look_up(value: np.uint64, index: NgramIndex) -> int:
    """Number of an n-gram in the index, or -1."""
    if not _may_contain(index.filter, value):
        return -1
    position = int(np.searchsorted(index.hashes, value))
    return position if position < len(index.hashes) and index.hashes[position] == value else -1


@compiled
def _window(data: Bytes, starts: Positions, ends: Positions, start: int, end: int, characters: int) -> tuple[int, int]:
    """The span extended by `characters` on both sides, snapped to word boundaries."""
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
