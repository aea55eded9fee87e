"""Lines that many documents of one site or book share: menus, footers, running heads.

- `find_repeated_lines`: finds them in two maps, `count_lines_partition` and `repeated_lines_partition`
- `RepeatedLines`: removes them from the documents of one file

Documents are grouped by the host of their URL, or else by their source and the first component of their path: the
folder of a site's or a book's files, or the single file of a whole book. Memory is bounded because the counts are
partitioned into buckets by group and summed bucket by bucket; a file receives the repeated lines that occur in it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.store.artifacts import Artifact
from infra.workers.exchange import Exchange, Incoming
from infra.workers.partitions import Partition, PartitionMap, PartitionWriter
from stages.clean.config import BoilerplateConfig
from stages.clean.measures.text_measures import TextMeasures
from stages.clean.rules.line_rules import without_lines
from stages.common.word_hashes import PRIME, Hashes

GROUP_ITSELF = 0
"""Placeholder for a line's hash in the row that counts the group's documents."""
BUCKET_BYTES = 64_000_000
"""Compressed documents per bucket: about 100 MB of counts."""
_COUNTS = pa.schema([("group", pa.uint64()), ("line", pa.uint64()), ("documents", pa.int64()), ("file", pa.uint32())])
_KEYS = pa.schema([("key", pa.uint64())])
_LINES = "lines"


def group_of(document: Mapping[str, Any]) -> str:
    """Site or book that a document belongs to."""
    try:
        host = urlsplit(document["url"]).hostname if document["url"] else None
    except ValueError:  # such as http://[spam, an address that begins as one of IPv6
        host = None
    return host or f"{document['source']}/{document['path'].split('/', 1)[0]}"


@dataclass(frozen=True)
class LineCounts:
    """Exchanges of the two passes; picklable."""

    files: int
    """Number of files of documents."""
    buckets: int
    """Number of buckets of groups."""

    @property
    def counts(self) -> Exchange:
        """Documents per group and line in one file, by bucket of groups."""
        return Exchange(_COUNTS, self.buckets)

    @property
    def keys(self) -> Exchange:
        """Keys of the repeated lines, by the files that contain them."""
        return Exchange(_KEYS, self.files)


def find_repeated_lines(
    documents: Artifact,
    files: Sequence[Partition],
    prepare: Callable[[Mapping[str, Any]], tuple[str, int]],
    config: BoilerplateConfig,
    maps: PartitionMap,
) -> "RepeatedLinesByFile":
    """Find the boilerplate lines of every site and book.

    Args:
        documents: artifact with the documents.
        files: a partition per file of documents; the payload is its path.
        prepare: returns a document's text as it is when lines are removed, and a count; picklable.
        config: when a line counts as repeated.
        maps: runs the passes `count_lines` and `repeated_lines`.
    """
    size = sum(entry.bytes for entry in documents.files if entry.path.startswith("documents/"))
    exchanges = LineCounts(len(files), size // BUCKET_BYTES + 1)
    numbered = [Partition(file.name, (number, file.payload)) for number, file in enumerate(files)]
    counted = maps.map("count_lines", partial(count_lines_partition, documents, prepare, exchanges), numbered)
    counts = exchanges.counts.collect(maps, "line_counts", counted, _LINES)
    buckets = [Partition(f"{number:05d}", number) for number in range(exchanges.buckets)]
    repeated = maps.map("repeated_lines", partial(repeated_lines_partition, counts, config, exchanges), buckets)
    keys = exchanges.keys.collect(maps, "repeated_keys", repeated, _LINES)
    return RepeatedLinesByFile(keys, {file.payload: number for number, file in enumerate(files)})


def count_lines_partition(
    documents: Artifact,
    prepare: Callable[[Mapping[str, Any]], tuple[str, int]],
    exchanges: LineCounts,
    payload: tuple[int, str],
    out: PartitionWriter,
) -> None:
    """Count the documents per group and line in one file of documents.

    Args:
        documents: artifact with the documents.
        prepare: returns a document's text as it is when lines are removed, and a count; picklable.
        exchanges: where the counts go.
        payload: number and path of the file, `documents/NAME.parquet`.
        out: receives the counts.
    """
    number, path = payload
    pairs = [np.empty((0, 2), dtype=np.uint64)]
    for row in documents.read_table(path).select(["text", "source", "path", "genre", "url"]).to_pylist():
        lines = np.unique(TextMeasures.of(prepare(row)[0]).line_hashes)
        lines = np.concatenate((np.array([GROUP_ITSELF], dtype=np.uint64), lines[lines != GROUP_ITSELF]))
        pairs.append(np.column_stack((np.full(len(lines), _hash(group_of(row))), lines)))
    groups, hashes = np.concatenate(pairs).T
    counts = _summed(pa.table({"group": groups, "line": hashes, "documents": np.ones(len(groups), dtype=np.int64)}))
    counts = counts.append_column("file", pa.array(np.full(len(counts), number, dtype=np.uint32)))
    buckets = counts["group"].to_numpy() % np.uint64(exchanges.buckets)
    exchanges.counts.write(out, _LINES, counts, buckets)


def repeated_lines_partition(
    counts: Incoming, config: BoilerplateConfig, exchanges: LineCounts, bucket: int, out: PartitionWriter
) -> None:
    """Find the repeated lines of the groups in one bucket.

    Args:
        counts: results of `count_lines_partition`.
        config: when a line counts as repeated.
        exchanges: where the keys go.
        bucket: index of the bucket.
        out: receives the keys of the repeated lines.
    """
    by_file = counts.read(bucket)
    total = _summed(by_file.drop_columns(["file"]))
    is_group = pc.equal(total["line"], pa.scalar(GROUP_ITSELF, pa.uint64()))
    sizes = dict(zip(*(total.filter(is_group)[name].to_pylist() for name in ("group", "documents")), strict=True))
    lines = total.filter(pc.invert(is_group))
    groups, hashes, documents = (lines[name].to_numpy() for name in ("group", "line", "documents"))
    group_sizes = np.fromiter((sizes[group] for group in groups.tolist()), dtype=np.int64, count=len(groups))
    repeated = (documents >= config.min_documents) & (documents >= config.min_share * group_sizes)
    keys = np.sort(_keys(groups[repeated], hashes[repeated]))
    keys_by_file = _keys(by_file["group"].to_numpy(), by_file["line"].to_numpy())
    is_repeated = _contains(keys, keys_by_file) & (by_file["line"].to_numpy() != GROUP_ITSELF)
    table = pa.table([keys_by_file[is_repeated]], schema=_KEYS)
    exchanges.keys.write(out, _LINES, table, by_file["file"].to_numpy()[is_repeated])


@dataclass(frozen=True)
class RepeatedLinesByFile:
    """Repeated lines of all files of documents; picklable."""

    keys: Incoming
    numbers: Mapping[str, int]
    """Path of a file of documents -> its number."""

    def of(self, path: str) -> "RepeatedLines":
        """Repeated lines of the groups of one file's documents, of those lines that occur in it."""
        return RepeatedLines(np.sort(self.keys.read(self.numbers[path])["key"].to_numpy()))


@dataclass(frozen=True)
class RepeatedLines:
    """Repeated lines of some groups; 8 bytes per line."""

    keys: Hashes
    """(lines,) uint64, sorted."""

    def remove(self, document: Mapping[str, Any], measures: TextMeasures) -> tuple[TextMeasures, int]:
        """Measures of the text without repeated lines, and the number of lines removed."""
        if not len(self.keys) or not len(measures.lines):
            return measures, 0
        repeated = _contains(self.keys, _keys(np.uint64(_hash(group_of(document))), measures.line_hashes))
        return without_lines(measures, repeated), int(repeated.sum())


def _hash(group: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest(), "little"))


def _keys(groups: Hashes | np.uint64, lines: Hashes) -> Hashes:
    """Hash of (group, line)."""
    with np.errstate(over="ignore"):
        return groups * PRIME ^ lines


def _contains(ascending: Hashes, values: Hashes) -> npt.NDArray[np.bool_]:
    """Mask of the values that are in a sorted array."""
    if not len(ascending):
        return np.zeros(len(values), dtype=np.bool_)
    nearest = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    mask: npt.NDArray[np.bool_] = ascending[nearest] == values
    return mask


def _summed(table: pa.Table) -> pa.Table:
    """Documents summed by group and line; single-threaded, so that the order is deterministic."""
    total = table.group_by(["group", "line"], use_threads=False).aggregate([("documents", "sum")])
    return total.select(["group", "line", "documents_sum"]).rename_columns(["group", "line", "documents"])
