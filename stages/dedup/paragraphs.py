"""Paragraphs or lines that occur in several documents: all but the first are cut.

Two partitioned passes: `hash_partition` writes the hashes of all units, partitioned into slices of hash values;
`slice_partition` processes one slice of all files, which bounds the memory. Occurrences are ordered by document id, so
the result does not depend on the partitioning.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.store.artifacts import Artifact
from infra.workers.exchange import Exchange, Incoming
from infra.workers.partitions import Partition, PartitionMap, PartitionWriter
from stages.common.compiled import compiled
from stages.common.word_classes import LETTERS_AND_DIGITS, WordTable
from stages.common.word_hashes import PRIME, Bytes, Hashes, Positions, find_words, mix, text_columns
from stages.dedup.config import ParagraphConfig
from stages.dedup.cuts import CUTS, CutSource
from stages.dedup.filter import FileFates, survives
from stages.dedup.near_duplicates.lsh_buckets import partition_of

SLICE_BYTES = 64_000_000
"""Compressed documents per slice of hash values: about 100 MB of hashes."""
NEWLINE = ord("\n")
UNITS = pa.schema(
    [
        pa.field("hash", pa.uint64()), pa.field("id", pa.string()), pa.field("file", pa.uint32()),
        pa.field("row", pa.int64()), pa.field("start", pa.int64()), pa.field("end", pa.int64()),
    ]
)  # fmt: skip
_UNITS, _CUTS = "units", "cuts"


def paragraph_cuts(
    documents: Artifact,
    names: Sequence[str],
    fates: Sequence[FileFates],
    config: ParagraphConfig,
    maps: PartitionMap,
) -> list[CutSource]:
    """Find the repeated units in the documents that survived so far.

    Args:
        documents: artifact with the documents.
        names: its files under `documents/`, in order.
        fates: fates of each file's documents.
        config: unit and minimum length.
        maps: runs the passes `paragraph_hashes` and `paragraph_slices`.
    """
    size = sum(entry.bytes for entry in documents.files if entry.path.startswith("documents/"))
    units = Exchange(UNITS, size // SLICE_BYTES + 1, compression="zstd")  # ids repeat, row after row
    cuts = Exchange(CUTS, len(names))
    files = [
        Partition(name.removesuffix(".parquet"), (number, name, file_fates))
        for number, (name, file_fates) in enumerate(zip(names, fates, strict=True))
    ]
    hashed = maps.map("paragraph_hashes", partial(hash_partition, documents, config, units), files)
    incoming = units.collect(maps, "paragraph_units", hashed, _UNITS)
    slices = [Partition(f"{number:05d}", number) for number in range(units.destinations)]
    found = maps.map("paragraph_slices", partial(slice_partition, incoming, config, cuts), slices)
    return [cuts.collect(maps, "paragraph_cuts", found, _CUTS)]


def hash_partition(
    documents: Artifact,
    config: ParagraphConfig,
    units: Exchange,
    payload: tuple[int, str, FileFates],
    out: PartitionWriter,
) -> None:
    """Write the units of one file, by slice of hash values."""
    number, name, fates = payload
    table = documents.read_table(f"documents/{name}").select(["id", "text"])
    rows = np.flatnonzero(survives(fates.read()))
    table = table.take(pa.array(rows))
    data, offsets = text_columns(table.column("text"))
    texts, hashes, starts, ends = _units(
        data, offsets, LETTERS_AND_DIGITS, config.unit == "line", config.min_characters
    )
    ids = table.column("id").combine_chunks().take(pa.array(texts))
    files = np.full(len(hashes), number, dtype=np.uint32)
    found = pa.table([hashes, ids, files, rows[texts], starts, ends], schema=UNITS)
    units.write(out, _UNITS, found, partition_of(hashes, units.destinations))


def slice_partition(
    incoming: Incoming, config: ParagraphConfig, cuts: Exchange, number: int, out: PartitionWriter
) -> None:
    """Write the spans to cut by one slice of hash values, by file."""
    units = incoming.read(number)
    _, value, counts = np.unique(units.column("hash").to_numpy(), return_inverse=True, return_counts=True)
    units = units.filter(pa.array(counts[value] > config.most))
    units = units.sort_by([("hash", "ascending"), ("id", "ascending"), ("start", "ascending")])
    units = units.filter(pa.array(_occurrence(units.column("hash").to_numpy()) >= config.most))
    columns = [*units.select(["row", "start", "end"]).columns, pa.repeat(f"duplicate_{config.unit}", len(units))]
    cuts.write(out, _CUTS, pa.table(columns, schema=CUTS), units.column("file").to_numpy())


def _occurrence(values: Hashes) -> npt.NDArray[np.int64]:
    """Number of equal values before each element of a sorted array."""
    positions = np.arange(len(values))
    is_first = np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
    return positions - np.maximum.accumulate(np.where(is_first, positions, 0))


@compiled
def _units(
    data: Bytes, offsets: Positions, table: WordTable, lines: bool, min_characters: int
) -> tuple[Positions, Hashes, Positions, Positions]:
    """Units of at least `min_characters` that contain a word: index of the text, hash, start and end in the text."""
    longest = np.max(offsets[1:] - offsets[:-1]) if len(offsets) > 1 else 0
    buffers = (
        np.empty(longest // 2 + 2, np.uint64),
        np.empty(longest // 2 + 2, np.int64),
        np.empty(longest // 2 + 2, np.int64),
    )
    capacity = len(data) // min_characters + len(offsets)
    texts, starts, ends = np.empty(capacity, np.int64), np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    hashes = np.empty(capacity, np.uint64)
    count = 0
    for text in range(len(offsets) - 1):
        position, stop = offsets[text], offsets[text + 1]
        while position < stop:
            start, end, position = _next_unit(data, position, stop, lines)
            if _characters(data, start, end) < min_characters:
                continue
            value = _hash_of(data, start, end, table, buffers)
            if value:
                texts[count], hashes[count] = text, value
                starts[count], ends[count] = start - offsets[text], end - offsets[text]
                count += 1
    return texts[:count], hashes[:count], starts[:count], ends[:count]


@compiled
def _next_unit(data: Bytes, begin: int, stop: int, lines: bool) -> tuple[int, int, int]:
    """Start and end of the next unit without surrounding white space, and the next position; empty at the end."""
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


@compiled
def _characters(data: Bytes, start: int, end: int) -> int:
    count = 0
    for position in range(start, end):
        if data[position] & 0xC0 != 0x80:
            count += 1
    return count


@compiled
def _hash_of(
    data: Bytes, start: int, end: int, table: WordTable, buffers: tuple[Hashes, Positions, Positions]
) -> np.uint64:
    """Hash of the words, without case, punctuation and white space; 0 if there are none."""
    hashes, starts, ends = buffers
    value = np.uint64(0)
    for word in range(find_words(data, start, end, table, hashes, starts, ends)):
        value = value * PRIME + hashes[word]
    return mix(value)
