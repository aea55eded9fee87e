"""Lines that many documents of one site or book share: menus, footers, running heads.

- `BoilerplateConfig`: how many documents, and which share of the group's
- `count_lines_partition`, `repeated_lines_partition`: which lines those are, in two maps
- `RepeatedLines`: takes them out of one document

Documents belong together by the host of their URL, or else by their source and the first component of their path: the
folder of a site's or a book's files, or the one file that holds a whole book. Memory stays bounded because the counts
are sorted into buckets by group and added up bucket by bucket; only the repeated lines' hashes come together.
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
"""In place of a line's hash: counts the group's documents."""


def group_of(document: Mapping[str, Any]) -> str:
    """The site or book that a document belongs to."""
    host = urlsplit(document["url"]).hostname if document["url"] else None
    return host or f"{document['source']}/{document['path'].split('/', 1)[0]}"


def count_lines_partition(
    documents: Artifact,
    prepare: Callable[[Mapping[str, Any]], tuple[str, int]],
    buckets: int,
    path: str,
    out: PartitionWriter,
) -> None:
    """In how many documents of each group each line stands, for one file of documents.

    Args:
        documents: the artifact they are in.
        prepare: gives first a document's text as it is when lines are taken out; picklable.
        buckets: how many files to spread the counts over.
        path: the file, `documents/NAME.parquet`.
        out: gets `lines/BUCKET.arrow` with the columns group, line (uint64 hashes) and documents (int64).
    """
    pairs = [np.empty((0, 2), dtype=np.uint64)]
    for row in documents.read_table(path).select(["text", "source", "path", "genre", "url"]).to_pylist():
        lines = np.unique(TextMeasures.of(prepare(row)[0]).line_hashes)
        lines = np.concatenate((np.array([GROUP_ITSELF], dtype=np.uint64), lines[lines != GROUP_ITSELF]))
        pairs.append(np.column_stack((np.full(len(lines), _hash(group_of(row))), lines)))
    groups, hashes = np.concatenate(pairs).T
    table = pa.table({"group": groups, "line": hashes, "documents": np.ones(len(groups), dtype=np.int64)})
    counted = _added(table)
    places = pa.array(counted["group"].to_numpy() % np.uint64(buckets))
    for bucket in range(buckets):
        out.write_table(f"lines/{bucket:05d}.arrow", counted.filter(pc.equal(places, bucket)))


def repeated_lines_partition(
    counted: list[PartitionResult], config: BoilerplateConfig, bucket: int, out: PartitionWriter
) -> None:
    """The repeated lines of the groups in one bucket.

    Args:
        counted: what `count_lines_partition` left for each file.
        config: which lines count as repeated.
        bucket: the bucket's number.
        out: gets `repeated.arrow` with the column key (uint64), sorted.
    """
    tables = [result.read_table(f"lines/{bucket:05d}.arrow") for result in counted]
    total = _added(pa.concat_tables(tables))
    is_group = pc.equal(total["line"], pa.scalar(GROUP_ITSELF, pa.uint64()))
    sizes = dict(zip(*(total.filter(is_group)[name].to_pylist() for name in ("group", "documents")), strict=True))
    lines = total.filter(pc.invert(is_group))
    groups, hashes, times = (lines[name].to_numpy() for name in ("group", "line", "documents"))
    of_group = np.fromiter((sizes[group] for group in groups.tolist()), dtype=np.int64, count=len(groups))
    repeated = (times >= config.min_documents) & (times >= config.min_share * of_group)
    keys = np.sort(_keys(groups[repeated], hashes[repeated]))
    out.write_table("repeated.arrow", pa.table({"key": keys}))


@dataclass(frozen=True)
class RepeatedLines:
    """The repeated lines of all groups; picklable, 8 bytes a line."""

    keys: Hashes
    """(lines,) uint64, sorted."""

    @classmethod
    def gather(cls, results: Iterable[PartitionResult]) -> "RepeatedLines":
        """From what `repeated_lines_partition` left for each bucket."""
        return cls(np.sort(np.concatenate([one.read_table("repeated.arrow")["key"].to_numpy() for one in results])))

    def remove(self, document: Mapping[str, Any], parts: TextMeasures) -> tuple[TextMeasures, int]:
        """The document's parts without them, and how many lines they were."""
        if not len(self.keys) or not len(parts.lines):
            return parts, 0
        keys = _keys(np.uint64(_hash(group_of(document))), parts.line_hashes)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        repeated = self.keys[places] == keys
        return without_lines(parts, repeated), int(repeated.sum())


def _hash(group: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest(), "little"))


def _keys(groups: Hashes | np.uint64, lines: Hashes) -> Hashes:
    """One number for a line of a group."""
    with np.errstate(over="ignore"):
        return groups * PRIME ^ lines


def _added(table: pa.Table) -> pa.Table:
    """Documents added up by group and line; on one thread, so that the order is the same each time."""
    total = table.group_by(["group", "line"], use_threads=False).aggregate([("documents", "sum")])
    return total.select(["group", "line", "documents_sum"]).rename_columns(["group", "line", "documents"])
