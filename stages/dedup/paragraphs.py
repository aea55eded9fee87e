"""Paragraphs or lines that occur in several documents: all but the first are cut.

Two partitioned passes: `hash_partition` writes every unit's hash, sorted into slices of the hash values; and
`slice_partition` looks at one slice over all files, which bounds the memory. Which occurrences stay is decided by
the documents' ids, so it does not depend on how the documents are partitioned.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.store.artifacts import Artifact
from infra.workers.partitions import Partition, PartitionMap, PartitionResult, PartitionWriter
from stages.common.word_hashes import LETTERS_AND_DIGITS, PRIME, Bytes, Hashes, Positions, find_words, mix, text_columns
from stages.dedup.config import ParagraphConfig
from stages.dedup.cuts import CutFile, cuts_by_file, read_batch, write_batches
from stages.dedup.filter import survives

SLICE_BYTES = 64_000_000
"""Of compressed documents whose units' hashes are looked at together: about 100 MB of hashes."""
NEWLINE = ord("\n")
UNITS = pa.schema(
    [
        pa.field("hash", pa.uint64()), pa.field("id", pa.string()),
        pa.field("row", pa.int64()), pa.field("start", pa.int64()), pa.field("end", pa.int64()),
    ]
)  # fmt: skip


def paragraph_cuts(
    documents: Artifact, names: Sequence[str], fates: Sequence[pa.Table], config: ParagraphConfig, maps: PartitionMap
) -> list[CutFile]:
    """Spans of the repeated units among the documents that survived so far.

    Args:
        documents: the artifact they are in.
        names: its files under `documents/`, in order.
        fates: of each file's documents.
        config: which units count.
        maps: runs the passes `paragraph_hashes` and `paragraph_slices`.
    """
    size = sum(entry.bytes for entry in documents.manifest.files if entry.path.startswith("documents/"))
    slices = size // SLICE_BYTES + 1
    files = [
        Partition(name.removesuffix(".parquet"), (name, pa.array(survives(table))))
        for name, table in zip(names, fates, strict=True)
    ]
    hashed = maps.map("paragraph_hashes", partial(hash_partition, documents, config, slices), files)
    numbered = [Partition(f"{number:05d}", number) for number in range(slices)]
    return [
        CutFile(result) for result in maps.map("paragraph_slices", partial(slice_partition, hashed, config), numbered)
    ]


def hash_partition(
    documents: Artifact, config: ParagraphConfig, slices: int, payload: tuple[str, pa.Array], out: PartitionWriter
) -> None:
    """Write `units.arrow`: the units of one file, a record batch per slice of the hash values."""
    name, survivors = payload
    table = documents.read_table(f"documents/{name}").select(["id", "text"])
    rows = np.flatnonzero(survivors.to_numpy(False))
    table = table.take(pa.array(rows))
    data, offsets = text_columns(table.column("text"))
    found = _units(data, offsets, config.unit == "line", config.min_characters)
    place, hashes, starts, ends = found
    ids = table.column("id").combine_chunks()
    edges = np.array([number * 2**64 // slices for number in range(1, slices)], dtype=np.uint64)
    slice_of = np.searchsorted(edges, hashes, side="right")
    tables = []
    for number in range(slices):
        chosen = np.flatnonzero(slice_of == number)
        names = ids.take(pa.array(place[chosen]))
        tables.append(
            pa.table([hashes[chosen], names, rows[place[chosen]], starts[chosen], ends[chosen]], schema=UNITS)
        )
    write_batches(out, "units.arrow", tables)


def slice_partition(
    hashed: Sequence[PartitionResult], config: ParagraphConfig, number: int, out: PartitionWriter
) -> None:
    """Write `cuts.arrow`: the spans that one slice of the hash values cuts, a record batch per file."""
    units = [read_batch(result, "units.arrow", number) for result in hashed]
    hashes = np.concatenate([one.column("hash").to_numpy() for one in units])
    files = np.repeat(np.arange(len(units)), [len(one) for one in units])
    _, value, times = np.unique(hashes, return_inverse=True, return_counts=True)
    repeated = times[value] > config.most
    borders = np.cumsum([0, *(len(one) for one in units)])
    kept = [
        one.filter(pa.array(repeated[begin:end])) for one, (begin, end) in zip(units, pairwise(borders), strict=True)
    ]
    some = pa.concat_tables(kept).append_column("file", pa.array(files[repeated]))
    some = some.sort_by([("hash", "ascending"), ("id", "ascending"), ("start", "ascending")])
    some = some.filter(pa.array(_occurrence(some.column("hash").to_numpy()) >= config.most))
    file, row, start, end = (some.column(name).to_numpy() for name in ("file", "row", "start", "end"))
    write_batches(out, "cuts.arrow", cuts_by_file(file, row, start, end, f"duplicate_{config.unit}", len(units)))


def _occurrence(values: Hashes) -> npt.NDArray[np.int64]:
    """How many equal values stand before each, in a sorted array."""
    positions = np.arange(len(values))
    is_first = np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
    return positions - np.maximum.accumulate(np.where(is_first, positions, 0))


@numba.njit(cache=True)
def _units(
    data: Bytes, offsets: Positions, lines: bool, min_characters: int
) -> tuple[Positions, Hashes, Positions, Positions]:
    """Every unit of at least `min_characters` with a word in it: its text's number, hash, start and end in the text."""
    longest = np.max(offsets[1:] - offsets[:-1]) if len(offsets) > 1 else 0
    buffers = (
        np.empty(longest // 2 + 2, np.uint64),
        np.empty(longest // 2 + 2, np.int64),
        np.empty(longest // 2 + 2, np.int64),
    )
    most = len(data) // min_characters + len(offsets)
    place, starts, ends = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    hashes = np.empty(most, np.uint64)
    count = 0
    for text in range(len(offsets) - 1):
        position, stop = offsets[text], offsets[text + 1]
        while position < stop:
            start, end, position = _next_unit(data, position, stop, lines)
            if _characters(data, start, end) < min_characters:
                continue
            value = _hash_of(data, start, end, buffers)
            if value:
                place[count], hashes[count] = text, value
                starts[count], ends[count] = start - offsets[text], end - offsets[text]
                count += 1
    return place[:count], hashes[:count], starts[:count], ends[:count]


@numba.njit(cache=True)
def _next_unit(data: Bytes, begin: int, stop: int, lines: bool) -> tuple[int, int, int]:
    """Start and end of the next unit without the white space around it, and where to go on; empty at the text's end."""
    start = begin
    while start < stop and data[start] <= 32:
        start += 1
    end = position = start
    breaks = 0
    while position < stop and breaks < (1 if lines else 2):
        if data[position] == NEWLINE:
            breaks += 1
        elif data[position] > 32:
            breaks = 0
            end = position + 1
        position += 1
    return start, end, position


@numba.njit(cache=True)
def _characters(data: Bytes, start: int, end: int) -> int:
    count = 0
    for position in range(start, end):
        if data[position] & 0xC0 != 0x80:
            count += 1
    return count


@numba.njit(cache=True)
def _hash_of(data: Bytes, start: int, end: int, buffers: tuple[Hashes, Positions, Positions]) -> np.uint64:
    """Of the words, without case, punctuation and white space; 0 where there are none."""
    hashes, starts, ends = buffers
    value = np.uint64(0)
    for word in range(find_words(data, start, end, LETTERS_AND_DIGITS, hashes, starts, ends)):
        value = value * PRIME + hashes[word]
    return mix(value)
