"""Exact-substring deduplication (ExactSubstr): repeats across documents and paragraphs are cut.

After Lee et al. 2021 (2107.06499, 4.1): a suffix array over all text sorts equal substrings next to each other. A
window of `min_bytes` is a repeat if the same bytes occur earlier without overlapping it; repeats are cut at word
boundaries. The text is ordered by document id, so the result does not depend on the partitioning. The suffix array
needs all text in the memory of one process.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_schemas.errors import EnvironmentProblem, InputDataError
from infra.store.artifacts import Artifact
from infra.workers.exchange import Pieces, write_pieces
from infra.workers.partitions import Partition, PartitionMap, PartitionWriter
from stages.common.compiled import compiled
from stages.common.word_hashes import Bytes, Positions, snap, text_columns, words
from stages.dedup.config import ExactSubstringConfig
from stages.dedup.cuts import CUTS, CutSource, all_cuts, cuts_by_file
from stages.dedup.filter import FileFates, survives

_CUTS = "cuts"
Suffixes = npt.NDArray[np.int32] | npt.NDArray[np.int64]


class Sections(NamedTuple):
    """Text of the survivors without earlier cuts, as concatenated sections in the order of the ids."""

    data: Bytes
    """(bytes,) uint8."""
    borders: Positions
    """(sections + 1,) int64, offsets of the sections in `data`."""
    file: Positions
    """(sections,) index of the file of documents."""
    row: Positions
    """(sections,) the document's row in that file."""
    offset: Positions
    """(sections,) offset of the section in the document's text."""


def substring_cuts(
    documents: Artifact,
    names: Sequence[str],
    fates: Sequence[FileFates],
    earlier: Sequence[CutSource],
    config: ExactSubstringConfig,
    maps: PartitionMap,
) -> list[CutSource]:
    """Find the repeats in the documents that survived so far.

    Args:
        documents: artifact with the documents.
        names: its files under `documents/`, in order.
        fates: fates of each file's documents.
        earlier: cuts of other steps; repeats are searched for in the remaining text.
        config: minimum length and maximum size.
        maps: runs the pass `exact_substring`, a single partition.

    Raises:
        EnvironmentProblem: if the library that builds the suffix array is not installed.
        InputDataError: if there is more text than `max_bytes`.
    """
    partition = Partition("all", (list(names), list(fates), list(earlier)))
    [result] = maps.map("exact_substring", partial(cut_repeats, documents, config), [partition])
    return [Pieces.of(result, _CUTS, CUTS)]


def cut_repeats(
    documents: Artifact,
    config: ExactSubstringConfig,
    payload: tuple[list[str], list[FileFates], list[CutSource]],
    out: PartitionWriter,
) -> None:
    """Write the spans to cut, a piece per file."""
    sections = _sections(documents, *payload, config.max_bytes)
    covered = repeated_bytes(sections.data, sections.borders, config.min_bytes)
    section, starts, ends = _runs(covered, sections.borders)
    del covered
    spans = _snapped(sections, section, starts, ends)
    files, rows, offsets = sections.file[spans[0]], sections.row[spans[0]], sections.offset[spans[0]]
    tables = cuts_by_file(files, rows, offsets + spans[1], offsets + spans[2], "repeated_text", len(payload[0]))
    write_pieces(out, _CUTS, tables)


def repeated_bytes(data: Bytes, borders: Positions, length: int) -> npt.NDArray[np.bool_]:
    """Mask (bytes,) of the windows of `length` that occur earlier without overlap; windows lie within a section.

    Args:
        data: (bytes,) uint8, writable (the library requires it), the sections' text.
        borders: (sections + 1,) int64, offsets of the sections.
        length: bytes per window.
    """
    order = suffix_array_library()(data) if len(data) else np.empty(0, np.int32)
    starts = np.zeros(len(data), dtype=np.bool_)
    _mark_repeats(data, borders, order, length, starts)
    del order
    return _covered(starts, length)


def suffix_array_library() -> Any:
    """`divsufsort` (Mori): bytes -> (bytes,) int32 or int64, offsets of the sorted suffixes.

    Raises:
        EnvironmentProblem: if it is not installed.
    """
    try:
        from pydivsufsort import divsufsort
    except ImportError:
        raise EnvironmentProblem(
            "dedup.exact_substring needs the package pydivsufsort, which is not installed; "
            "install it with: pip install 'headrace[substring]', or omit dedup.exact_substring"
        ) from None
    return divsufsort


def _sections(
    documents: Artifact, names: list[str], fates: list[FileFates], earlier: list[CutSource], max_bytes: int
) -> Sections:
    """Read the survivors, sorted by id.

    Raises:
        InputDataError: if there is more text than `max_bytes`.
    """
    ids: list[str] = []
    rows: list[tuple[int, int]] = []
    texts: list[bytes] = []
    size = 0
    for number, (name, file_fates) in enumerate(zip(names, fates, strict=True)):
        mask = survives(file_fates.read())
        table = documents.read_table(f"documents/{name}").select(["id", "text"]).filter(pa.array(mask))
        rows += [(number, row) for row in np.flatnonzero(mask).tolist()]
        ids += table.column("id").to_pylist()
        data, offsets = text_columns(table.column("text"))
        texts += [data[begin:end].tobytes() for begin, end in pairwise(offsets)]
        size += int(offsets[-1] - offsets[0])
        if size > max_bytes:
            raise InputDataError(
                f"dedup.exact_substring.max_bytes is {max_bytes:,}, but more text than that survived near-duplicate "
                f"detection; the suffix array takes 7 bytes of memory per byte of text (11 from 2 GiB on): raise "
                f"max_bytes if that fits into memory, or omit dedup.exact_substring"
            )
    order = sorted(range(len(ids)), key=ids.__getitem__)
    spans = [all_cuts(earlier, number) for number in range(len(names))]
    return _without(texts, rows, order, spans)


def _without(texts: list[bytes], rows: list[tuple[int, int]], order: list[int], spans: list[pa.Table]) -> Sections:
    """Sections of the ordered texts between the spans; `rows` is (file, row) of each text."""
    cut: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for number, table in enumerate(spans):
        for span in table.to_pylist():
            cut.setdefault((number, span["row"]), []).append((span["start"], span["end"]))
    pieces: list[bytes] = []
    origins: list[tuple[int, int, int]] = []
    for document in order:
        position = 0
        length = len(texts[document])
        for start, end in [*cut.get(rows[document], []), (length, length)]:
            if start > position:
                pieces.append(texts[document][position:start])
                origins.append((*rows[document], position))
            position = max(position, end)
    columns = np.array(origins, dtype=np.int64).reshape(-1, 3).T
    borders = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
    return Sections(np.frombuffer(bytearray().join(pieces), dtype=np.uint8), borders, *columns)


def _snapped(sections: Sections, section: Positions, starts: Positions, ends: Positions) -> list[Positions]:
    """Runs snapped to word boundaries: section, and start and end within it; runs without a whole word are omitted."""
    snapped: list[tuple[int, int, int]] = []
    current, text, split = -1, sections.data[:0], words(sections.data[:0])
    for number, start, end in zip(section.tolist(), starts.tolist(), ends.tolist(), strict=True):
        if number != current:
            current, text = number, sections.data[sections.borders[number] : sections.borders[number + 1]]
            split = words(text)
        start, end = snap(text, split.starts, split.ends, start, end)
        if start < end:
            snapped.append((number, start, end))
    return list(np.array(snapped, dtype=np.int64).reshape(-1, 3).T)


@compiled
def _mark_repeats(data: Bytes, borders: Positions, order: Suffixes, length: int, marks: npt.NDArray[np.bool_]) -> None:
    """Mark the start of every window that repeats an earlier one.

    Neighbors in the suffix array that agree in `length` bytes form a group; comparing these bytes directly avoids the
    array of longest common prefixes, which would take four more bytes of memory per byte.
    """
    fits = _fits(borders, length, len(data))
    begin = 0
    while begin < len(order):
        if not fits[order[begin]]:
            begin += 1
            continue
        first = order[begin]
        end, last = begin + 1, begin
        while end < len(order):
            if fits[order[end]]:
                if not _same(data, order[last], order[end], length):
                    break
                first = min(first, order[end])
                last = end
            end += 1
        for position in range(begin, last + 1):
            start = order[position]
            if fits[start] and start >= first + length:
                marks[start] = True
        begin = end


@compiled
def _fits(borders: Positions, length: int, size: int) -> npt.NDArray[np.bool_]:
    """Mask (bytes,) of the offsets at which a window fits into its section."""
    fits = np.zeros(size, dtype=np.bool_)
    for section in range(len(borders) - 1):
        fits[borders[section] : max(borders[section], borders[section + 1] - length + 1)] = True
    return fits


@compiled
def _same(data: Bytes, first: int, second: int, length: int) -> bool:
    equal = 0
    while equal < length and data[first + equal] == data[second + equal]:
        equal += 1
    return equal == length


@compiled
def _covered(starts: npt.NDArray[np.bool_], length: int) -> npt.NDArray[np.bool_]:
    """Extend the marks to all bytes of the windows that begin there, in place."""
    remaining = 0
    for position in range(len(starts)):
        remaining = length if starts[position] else remaining - 1
        starts[position] = remaining > 0
    return starts


@compiled
def _runs(covered: npt.NDArray[np.bool_], borders: Positions) -> tuple[Positions, Positions, Positions]:
    """Runs of covered bytes: section, and start and end within it."""
    count = 0
    for section in range(len(borders) - 1):
        for position in range(borders[section], borders[section + 1]):
            if covered[position] and (position == borders[section] or not covered[position - 1]):
                count += 1
    sections, starts, ends = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
    count = 0
    for section in range(len(borders) - 1):
        inside = False
        for position in range(borders[section], borders[section + 1]):
            if covered[position] and not inside:
                sections[count], starts[count] = section, position - borders[section]
            if inside and not covered[position]:
                ends[count] = position - borders[section]
                count += 1
            inside = covered[position]
        if inside:
            ends[count] = borders[section + 1] - borders[section]
            count += 1
    return sections, starts, ends
