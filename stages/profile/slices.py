"""Slices of a corpus: all of it, its splits, and its largest genres, languages, sources and domains.

- `Slices`: the slices of a corpus, and those of each document
- `count_partition`: documents of one file by genre, language ...; `chosen`: the slices from all files
- `Cell`: documents of a file that belong to the same slices

Documents are analyzed cell by cell, once each, and a slice is the merge of its cells. The number of slices is bounded:
of each dimension the largest values have one, all others share `other`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from infra.store.artifacts import Artifact
from infra.workers.partitions import PartitionResult, PartitionWriter
from stages.profile.config import ProfileConfig

ALL, OTHER, NONE, UNKNOWN = "all", "other", "none", "unknown"
SPLITS = ("train", "held_out")
DIMENSIONS = ("genre", "language", "source", "domain")
COLUMNS = ("genre", "language", "source", "url")
COUNTS = "counts.json"
NAME_CHARACTERS = 200
"""A longer genre, language, source or host is cut."""
COUNTED_VALUES = 5_000
"""Values of a dimension that a file reports, the most frequent ones; far more than have a slice."""


class Cell(NamedTuple):
    """Documents of one file with the same slices."""

    values: tuple[str, ...]
    """Its value of each of `DIMENSIONS`, or `other`."""
    rows: npt.NDArray[np.int64]
    """(documents,) int64, rows in the file."""


@dataclass(frozen=True)
class Slices:
    """The slices of a corpus; picklable."""

    values: Mapping[str, tuple[str, ...]]
    """Dimension -> the values that have a slice, the largest first; none for a dimension without slices."""
    others: Mapping[str, int]
    """Dimension -> how many values share `other`, as far as they were counted."""
    splits: tuple[str, ...] = SPLITS
    """Splits that have a slice; none if the corpus is not divided."""

    @property
    def names(self) -> list[str]:
        """Names of all slices, such as `genre=news`."""
        dimensions = [
            f"{dimension}={value}"
            for dimension in DIMENSIONS
            for value in (*self.values[dimension], *([OTHER] if self.others.get(dimension) else []))
        ]
        return list(dict.fromkeys([ALL, *(f"split={split}" for split in self.splits), *dimensions]))

    def name_of(self, dimension: str, value: str) -> str | None:
        """Name of the slice of a value; None if the dimension has no slices."""
        if not self.values[dimension]:
            return None
        return f"{dimension}={value if value in self.values[dimension] else OTHER}"

    def of_cell(self, split: str, values: Sequence[str]) -> list[str]:
        """Names of the slices that a cell belongs to."""
        pairs = zip(DIMENSIONS, values, strict=True)
        own = [f"split={split}"] if split in self.splits else []
        return [ALL, *own, *(f"{name}={value}" for name, value in pairs if self.values[name])]

    def cells(self, table: pa.Table) -> Iterator[Cell]:
        """The documents of a file by their slices, in the order of the names."""
        columns = []
        for dimension, values in values_of(table).items():
            known = set(self.values[dimension])
            columns.append([value if value in known else OTHER for value in values])
        rows: dict[tuple[str, ...], list[int]] = {}
        for row, cell in enumerate(zip(*columns, strict=True)):
            rows.setdefault(cell, []).append(row)
        for cell in sorted(rows):
            yield Cell(cell, np.array(rows[cell]))


def values_of(table: pa.Table) -> dict[str, list[str]]:
    """Dimension -> the value of each document, cut to `NAME_CHARACTERS`; the table has `COLUMNS`."""
    return {
        "genre": [(value or NONE)[:NAME_CHARACTERS] for value in table.column("genre").to_pylist()],
        "language": [(value or UNKNOWN)[:NAME_CHARACTERS] for value in table.column("language").to_pylist()],
        "source": [(value or NONE)[:NAME_CHARACTERS] for value in table.column("source").to_pylist()],
        "domain": [domain(url) for url in table.column("url").to_pylist()],
    }


def domain(url: str | None) -> str:
    """Host of a URL without `www.` and the full stop of the root; `none` if there is no URL, or no host in it."""
    try:
        host = urlsplit(url or "").hostname
    except ValueError:  # such as a bracket that never closes
        return NONE
    return (host or "").rstrip(".").removeprefix("www.")[:NAME_CHARACTERS] or NONE


def count_partition(corpus: Artifact, path: str, out: PartitionWriter) -> None:
    """Count the documents of one file by the values of each dimension; no text is read."""
    with corpus.open(path) as file:
        table = pq.ParquetFile(file).read(columns=list(COLUMNS))
    counts = {name: Counter(values) for name, values in values_of(table).items()}
    largest = {name: _largest(counter, COUNTED_VALUES) for name, counter in counts.items()}
    out.write(COUNTS, json.dumps({"documents": len(table), "values": largest}).encode())


def chosen(results: Iterable[tuple[str, PartitionResult]], config: ProfileConfig) -> Slices:
    """The largest values of each dimension over all files; a dimension without a value has no slices.

    Args:
        results: split and result of `count_partition` for each file of the corpus.
        config: how many slices there are.
    """
    totals = {dimension: Counter[str]() for dimension in DIMENSIONS}
    documents = Counter[str]()
    for split, result in results:
        counts = json.loads(result.folder.read(result.location(COUNTS)))
        documents[split] += counts["documents"]
        for dimension, pairs in counts["values"].items():
            totals[dimension].update(dict(pairs))
            if len(totals[dimension]) > 20 * COUNTED_VALUES:
                totals[dimension] = Counter(dict(_largest(totals[dimension], 10 * COUNTED_VALUES)))
    limits = config.slices.model_dump()
    values, others = {}, {}
    for dimension, counter in totals.items():
        some = [value for value, _ in _largest(counter, limits[dimension]) if value != OTHER]
        is_known = set(counter) - {NONE, UNKNOWN}
        values[dimension] = tuple(some) if is_known else ()
        others[dimension] = len(counter) - len(some) if values[dimension] else 0
    return Slices(values, others, SPLITS if all(documents[split] for split in SPLITS) else ())


def _largest(counter: Counter[str], number: int) -> list[tuple[str, int]]:
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:number]
