"""Documents, URLs and lines that occur more than once."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import xxhash

from stages.common.compiled import compiled
from stages.common.word_hashes import PRIME, Bytes, Hashes, Positions, mix, text_columns
from stages.profile.analysis import Analysis, Measure, State
from stages.profile.rows import distinct, estimate_measure, top_measures
from stages.profile.sketches import type_counts
from stages.profile.sketches.type_counts import Estimate

LINE_BYTES = 30
"""Shorter lines are headings and idioms."""
TOP = 20
"""Lines that are listed."""
UNITS = {"texts": "documents", "urls": "documents", "lines": "lines"}


class Duplicates(Analysis):
    """Share of texts, URLs and lines that repeat another one exactly, and the lines that most often occur."""

    name = "duplicates"

    def __init__(self, capacity: int = type_counts.CAPACITY // 4) -> None:
        self._capacity = capacity

    def empty(self) -> State:
        """Counts of the three, and texts of the most frequent lines."""
        return {**{name: type_counts.of(np.empty(0, np.uint64)) for name in UNITS}, "top": {}}

    def add(self, state: State, documents: pa.RecordBatch) -> State:
        """Count more documents; those without a URL have no duplicate URLs."""
        data, texts = text_columns(documents.column("text"))
        hashes, starts, ends = _hash_lines(data, texts)
        urls = [xxhash.xxh64_intdigest(url.encode()) for url in documents.column("url").to_pylist() if url]
        lines = type_counts.of(hashes, self._capacity)
        top = {
            name: data[starts[token] : ends[token]].tobytes().decode(errors="replace")[:200]
            for name, token in type_counts.first_tokens(lines, hashes, 4 * TOP).items()
        }
        more = {
            "texts": type_counts.of(_hash_texts(data, texts), self._capacity),
            "urls": type_counts.of(np.array(urls, dtype=np.uint64), self._capacity),
            "lines": lines,
            "top": top,
        }
        return self.merge(state, more)

    def merge(self, first: State, second: State) -> State:
        """Merge the counts."""
        merged = {name: type_counts.merge(first[name], second[name], self._capacity) for name in UNITS}
        texts = {**first["top"], **second["top"]}
        return {**merged, "top": type_counts.still_frequent(merged["lines"], texts, 4 * TOP)}

    def measures(self, state: State) -> Sequence[Measure]:
        """`duplicates.{texts,urls,lines}.{share,groups,largest}`, and the lines that most often occur."""
        rows: list[Measure] = []
        for name, unit in UNITS.items():
            counts = state[name]
            if not counts["tokens"]:
                continue
            types, tokens = distinct(counts), counts["tokens"]
            share, *ends = (max(0.0, 1 - number / tokens) for number in (types.value, types.high, types.low))
            groups = type_counts.type_sum(counts, lambda count: (count > 1).astype(np.float64))
            _, largest, error = type_counts.most_frequent(counts, 1)
            rows += [
                estimate_measure(f"duplicates.{name}.share", Estimate(share, *ends), "share"),
                estimate_measure(f"duplicates.{name}.groups", groups, "groups"),
                Measure(f"duplicates.{name}.largest", int(largest[0]), unit, None, int(largest[0]),
                        int(largest[0] + error[0]), not error[0]),
            ]  # fmt: skip
        return [*rows, *top_measures("duplicates.lines.top", "lines", state["lines"], state["top"], TOP, least=2)]


@compiled
def _hash(data: Bytes, begin: int, end: int) -> np.uint64:
    value = np.uint64(end - begin)
    for position in range(begin, end):
        value = value * PRIME + np.uint64(data[position]) + np.uint64(1)
    return mix(value)


@compiled
def _hash_texts(data: Bytes, texts: Positions) -> Hashes:
    hashes = np.empty(len(texts) - 1, dtype=np.uint64)
    for number in range(len(hashes)):
        hashes[number] = _hash(data, texts[number], texts[number + 1])
    return hashes


@compiled
def _hash_lines(data: Bytes, texts: Positions) -> tuple[Hashes, Positions, Positions]:
    """Hashes, starts and ends of the lines of at least `LINE_BYTES` bytes, without white space at their ends."""
    size = (texts[-1] - texts[0]) // LINE_BYTES + 1
    hashes, starts, ends = np.empty(size, np.uint64), np.empty(size, np.int64), np.empty(size, np.int64)
    count = 0
    for number in range(len(texts) - 1):
        begin = texts[number]
        for position in range(texts[number], texts[number + 1] + 1):
            if position == texts[number + 1] or data[position] == 0x0A:
                first, last = begin, position
                while first < last and data[first] <= 0x20:
                    first += 1
                while last > first and data[last - 1] <= 0x20:
                    last -= 1
                if last - first >= LINE_BYTES:
                    hashes[count], starts[count], ends[count] = _hash(data, first, last), first, last
                    count += 1
                begin = position + 1
    return hashes[:count], starts[:count], ends[:count]
