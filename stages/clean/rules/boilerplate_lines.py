"""Lines that many documents of one site or book share: menus, footers, running heads.

- `count_lines_partition`, `repeated_lines_partition`: find the repeated lines, in two maps
- `RepeatedLines`: removes them from a document

Documents are grouped by the host of their URL, or else by their source and the first component of their path: the
folder of a site's or a book's files, or the single file of a whole book. Memory is bounded because the counts are
partitioned into buckets by group and summed bucket by bucket; only the hashes of the repeated lines are gathered.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.store.artifacts import Artifact
from infra.workers.partitions import PartitionResult, PartitionWriter
from stages.clean.config import BoilerplateConfig
from stages.clean.measures.text_measures import TextMeasures
from stages.clean.rules.line_rules import without_lines
from stages.common.word_hashes import PRIME, Hashes

GROUP_ITSELF = 0
"""Placeholder for a line's hash in the row that counts the group's documents."""


def group_of(document: Mapping[str, Any]) -> str:
    """Site or book that a document belongs to."""
    host = urlsplit(document["url"]).hostname if document["url"] else None
    return host or f"{document['source']}/{document['path'].split('/', 1)[0]}"


def count_lines_partition(
    documents: Artifact,
    prepare: Callable[[Mapping[str, Any]], tuple[str, int]],
    buckets: int,
    path: str,
    out: PartitionWriter,
) -> None:
    """Count the documents per group and line in one file of documents.

    Args:
        documents: artifact with the documents.
        prepare: returns a document's text as it is when lines are removed, and a count; picklable.
        buckets: number of files to spread the counts over.
        path: the file, `documents/NAME.parquet`.
        out: receives `lines/BUCKET.arrow` with the columns group, line (uint64 hashes) and documents (int64).
    """
    pairs = [np.empty((0, 2), dtype=np.uint64)]
    for row in documents.read_table(path).select(["text", "source", "path", "genre", "url"]).to_pylist():
        lines = np.unique(TextMeasures.of(prepare(row)[0]).line_hashes)
        lines = np.concatenate((np.array([GROUP_ITSELF], dtype=np.uint64), lines[lines != GROUP_ITSELF]))
        pairs.append(np.column_stack((np.full(len(lines), _hash(group_of(row))), lines)))
    groups, hashes = np.concatenate(pairs).T
    table = pa.table({"group": groups, "line": hashes, "documents": np.ones(len(groups), dtype=np.int64)})
    counts = _summed(table)
    bucket_of = pa.array(counts["group"].to_numpy() % np.uint64(buckets))
    for bucket in range(buckets):
        out.write_table(f"lines/{bucket:05d}.arrow", counts.filter(pc.equal(bucket_of, bucket)))


def repeated_lines_partition(
    counted: list[PartitionResult], config: BoilerplateConfig, bucket: int, out: PartitionWriter
) -> None:
    """Find the repeated lines of the groups in one bucket.

    Args:
        counted: results of `count_lines_partition`.
        config: when a line counts as repeated.
        bucket: index of the bucket.
        out: receives `repeated.arrow` with the column key (uint64), sorted.
    """
    tables = [result.read_table(f"lines/{bucket:05d}.arrow") for result in counted]
    total = _summed(pa.concat_tables(tables))
    is_group = pc.equal(total["line"], pa.scalar(GROUP_ITSELF, pa.uint64()))
    sizes = dict(zip(*(total.filter(is_group)[name].to_pylist() for name in ("group", "documents")), strict=True))
    lines = total.filter(pc.invert(is_group))
    groups, hashes, counts = (lines[name].to_numpy() for name in ("group", "line", "documents"))
    group_sizes = np.fromiter((sizes[group] for group in groups.tolist()), dtype=np.int64, count=len(groups))
    repeated = (counts >= config.min_documents) & (counts >= config.min_share * group_sizes)
    keys = np.sort(_keys(groups[repeated], hashes[repeated]))
    out.write_table("repeated.arrow", pa.table({"key": keys}))


@dataclass(frozen=True)
class RepeatedLines:
    """Repeated lines of all groups; picklable, 8 bytes per line."""

    keys: Hashes
    """(lines,) uint64, sorted."""

    @classmethod
    def gather(cls, results: Iterable[PartitionResult]) -> "RepeatedLines":
        """Merge the results of `repeated_lines_partition`."""
        keys = [result.read_table("repeated.arrow")["key"].to_numpy() for result in results]
        return cls(np.sort(np.concatenate(keys)))

    def remove(self, document: Mapping[str, Any], measures: TextMeasures) -> tuple[TextMeasures, int]:
        """Measures of the text without repeated lines, and the number of lines removed."""
        if not len(self.keys) or not len(measures.lines):
            return measures, 0
        keys = _keys(np.uint64(_hash(group_of(document))), measures.line_hashes)
        nearest = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        repeated = self.keys[nearest] == keys
        return without_lines(measures, repeated), int(repeated.sum())


def _hash(group: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest(), "little"))


def _keys(groups: Hashes | np.uint64, lines: Hashes) -> Hashes:
    """Hash of (group, line)."""
    with np.errstate(over="ignore"):
        return groups * PRIME ^ lines


def _summed(table: pa.Table) -> pa.Table:
    """Documents summed by group and line; single-threaded, so that the order is deterministic."""
    total = table.group_by(["group", "line"], use_threads=False).aggregate([("documents", "sum")])
    return total.select(["group", "line", "documents_sum"]).rename_columns(["group", "line", "documents"])
