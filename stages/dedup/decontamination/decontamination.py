"""Decontamination: finds benchmark items in the training text, and drops, cuts or tags the documents that contain them.

After Brown et al. 2020 (2005.14165, appendix C): a word n-gram that a benchmark item and a document share is a leak,
unless more than `max_documents` documents contain it (licenses, proverbs, quotations). A cut includes a window around
the n-gram; a document with too many cuts is dropped.

Three passes: `build_index` over the benchmarks, `scan_partition` over each file, `tally` over all matches.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_schemas.manifest import FileEntry
from data_schemas.tables import CONTAMINATION
from infra.store.artifacts import Artifact
from infra.workers.exchange import Pieces, write_pieces
from infra.workers.partitions import Partition, PartitionMap, PartitionResult, PartitionWriter
from stages.common.benchmark_ngrams.index import (
    DECIDING,
    REPORTED,
    NgramIndex,
    build_index,
    deciding_ngrams,
    find_ngrams,
    load_index,
)
from stages.common.benchmark_ngrams.items import BenchmarkFile
from stages.common.word_hashes import Positions, text_columns
from stages.dedup.config import DecontaminationConfig
from stages.dedup.cuts import CUTS, CutSource, cuts_by_file
from stages.dedup.filter import CONTAMINATED, FileFates, survives

Mask = npt.NDArray[np.bool_]
REPORT = "contamination/items.parquet"
_DOCUMENTS, _CUTS = "documents", "cuts"
_CONTAMINATED = pa.schema([("row", pa.int64()), ("item", pa.string()), ("windows", pa.int64())])


@dataclass(frozen=True)
class Contamination:
    """Matches in all files."""

    result: PartitionResult
    config: DecontaminationConfig

    @property
    def report(self) -> FileEntry:
        """File of the table `CONTAMINATION`, to be adopted into the artifact."""
        return next(entry for entry in self.result.marker.files if entry.path == REPORT)

    @property
    def cuts(self) -> list[CutSource]:
        """Windows to cut; none unless the action is `cut`."""
        return [Pieces.of(self.result, _CUTS, CUTS)] if self.config.action == "cut" else []

    def metrics(self) -> dict[str, Any]:
        """Benchmark file -> numbers of items, testable and contaminated items, share of the testable, documents."""
        rows = self.result.read_table("benchmarks.arrow").to_pylist()
        return {row.pop("benchmark"): row for row in rows}

    def marked(self, number: int, fates: pa.Table) -> pa.Table:
        """Fates of a file's documents with the contaminated ones dropped or tagged, as configured."""
        contaminated = Pieces.of(self.result, _DOCUMENTS, _CONTAMINATED).read(number)
        if not len(contaminated):
            return fates
        columns = {name: fates.column(name).to_pylist() for name in fates.column_names}
        for document in contaminated.to_pylist():
            row, too_many = document["row"], document["windows"] > self.config.max_windows
            if self.config.action == "drop" or (self.config.action == "cut" and too_many):
                columns["fate"][row], columns["detail"][row] = CONTAMINATED, document["item"]
            columns["tagged"][row] = self.config.action == "tag"
        return pa.table(columns, schema=fates.schema)


def find_contamination(
    documents: Artifact,
    names: Sequence[str],
    fates: Sequence[FileFates],
    config: DecontaminationConfig,
    benchmarks: Sequence[BenchmarkFile],
    maps: PartitionMap,
) -> Contamination:
    """Search the documents that survived so far for all benchmark items.

    Args:
        documents: artifact with the documents.
        names: its files under `documents/`, in order.
        fates: fates of each file's documents.
        config: lengths and action.
        benchmarks: files of the benchmarks, as listed.
        maps: runs the passes `benchmark_index`, `contamination_scan` and `contamination_tally`.

    Raises:
        InputDataError: if a benchmark file has vanished, cannot be read, or has no item.
    """
    [index] = maps.map("benchmark_index", partial(build_index, config), [Partition("all", benchmarks)])
    files = [
        Partition(name.removesuffix(".parquet"), (name, file_fates))
        for name, file_fates in zip(names, fates, strict=True)
    ]
    scanned = maps.map("contamination_scan", partial(scan_partition, documents, config, index), files)
    everything = Partition("all", (index, scanned))
    [result] = maps.map("contamination_tally", partial(tally, config), [everything])
    return Contamination(result, config)


def scan_partition(
    documents: Artifact,
    config: DecontaminationConfig,
    index: PartitionResult,
    payload: tuple[str, FileFates],
    out: PartitionWriter,
) -> None:
    """Write `found.arrow`: row and id of the document, index of the n-gram, start and end of its window."""
    name, fates = payload
    survivors = survives(fates.read())
    table = documents.read_table(f"documents/{name}").select(["id", "text"]).filter(pa.array(survivors))
    data, offsets = text_columns(table.column("text"))
    window = config.window_characters if config.action == "cut" else 0
    matches = find_ngrams(data, offsets, load_index(index, config), window)
    rows = np.flatnonzero(survivors)[matches.texts]
    ids = table.column("id").combine_chunks().take(pa.array(matches.texts)).dictionary_encode()
    columns = {"row": rows, "id": ids, "ngram": matches.ngrams, "start": matches.starts, "end": matches.ends}
    out.write_table("found.arrow", pa.table(columns))


def tally(
    config: DecontaminationConfig, payload: tuple[PartitionResult, Sequence[PartitionResult]], out: PartitionWriter
) -> None:
    """Write the report, the figures per benchmark, and per file the contaminated documents and their windows."""
    built, scanned = payload
    index, items = load_index(built, config), built.read_table("items.arrow")
    counted = _counted(index, scanned, config.max_documents)
    holders = _holders(index, scanned, counted)
    report = _report(index, items, counted, holders, config)
    out.write_table(REPORT, report)
    out.write_table("benchmarks.arrow", _by_benchmark(items, report, holders, config))
    acting = counted & deciding_ngrams(index)
    documents, cuts = [], []
    for result in scanned:
        matches = result.read_table("found.arrow")
        matches = matches.filter(pa.array(acting[matches.column("ngram").to_numpy()]))
        matches = matches.sort_by([("row", "ascending"), ("start", "ascending"), ("end", "ascending")])
        rows, ngrams, starts, ends = (matches.column(name).to_numpy() for name in ("row", "ngram", "start", "end"))
        contaminated, first = np.unique(rows, return_index=True)
        rows, starts, ends = _merged(rows, starts, ends)
        names = pa.array([_name(index, items, ngram) for ngram in ngrams[first].tolist()], pa.string())
        windows = np.unique(rows, return_counts=True)[1].astype(np.int64)
        documents.append(pa.table([contaminated, names, windows], schema=_CONTAMINATED))
        cuts += cuts_by_file(np.zeros_like(rows), rows, starts, ends, CONTAMINATED, 1)
    write_pieces(out, _DOCUMENTS, documents)
    write_pieces(out, _CUTS, cuts)


def _counted(index: NgramIndex, scanned: Sequence[PartitionResult], max_documents: int) -> Mask:
    """Mask (ngrams,) of those that occur in the text, but in no more documents than the limit."""
    documents = np.zeros(len(index.hashes), dtype=np.int64)
    for result in scanned:
        documents += np.bincount(_distinct(result).column("ngram").to_numpy(), minlength=len(documents))
    counted: Mask = (documents > 0) & (documents <= max_documents)
    return counted


def _holders(index: NgramIndex, scanned: Sequence[PartitionResult], counted: Mask) -> pa.Table:
    """Distinct pairs (entry, id) of an entry and a document that contains a counted n-gram of it."""
    holders = [pa.table({"entry": pa.array([], pa.int64()), "id": pa.array([], pa.string())})]
    for result in scanned:
        pairs = _distinct(result)
        pairs = pairs.filter(pa.array(counted[pairs.column("ngram").to_numpy()]))
        ngrams = pairs.column("ngram").to_numpy()
        counts = index.borders[ngrams + 1] - index.borders[ngrams]
        pair = np.repeat(np.arange(len(pairs)), counts)
        entries = index.entries[np.arange(len(pair)) + (index.borders[ngrams] - (np.cumsum(counts) - counts))[pair]]
        ids = pairs.column("id").cast(pa.string()).take(pa.array(pair))
        holders.append(pa.table({"entry": entries, "id": ids}).group_by(["entry", "id"]).aggregate([]))
    return pa.concat_tables(holders)


def _distinct(result: PartitionResult) -> pa.Table:
    """Matches of a file, each pair of a document and an n-gram once."""
    matches = result.read_table("found.arrow")
    keys = (matches.column("row").to_numpy() << 40) + matches.column("ngram").to_numpy()
    return matches.take(pa.array(np.unique(keys, return_index=True)[1]))


def _report(
    index: NgramIndex, items: pa.Table, counted: Mask, holders: pa.Table, config: DecontaminationConfig
) -> pa.Table:
    """The table `CONTAMINATION`: all items by the deciding length, then by the reported one."""
    size = 2 * len(items)
    ngram_of = np.repeat(np.arange(len(index.hashes)), np.diff(index.borders))
    ngrams = np.bincount(index.entries, minlength=size)
    matched = np.bincount(index.entries[counted[ngram_of]], minlength=size)
    grouped = holders.group_by("entry").aggregate([("id", "count"), ("id", "min")])
    documents, example = np.zeros(size, dtype=np.int64), np.full(size, None, dtype=object)
    entries = grouped.column("entry").to_numpy()
    documents[entries] = grouped.column("id_count").to_numpy()
    example[entries] = grouped.column("id_min").to_pylist()
    tables = []
    for kind, length in ((DECIDING, config.ngram), (REPORTED, config.also_report)):
        if length is not None:
            columns = [np.full(len(items), length), *(c[kind::2] for c in (ngrams, matched, documents, example))]
            arrays = [pa.array(column, dtype) for column, dtype in zip(columns, CONTAMINATION.types[2:], strict=True)]
            tables.append(pa.table([*items.columns, *arrays], schema=CONTAMINATION))
    return pa.concat_tables(tables)


def _by_benchmark(items: pa.Table, report: pa.Table, holders: pa.Table, config: DecontaminationConfig) -> pa.Table:
    """A row per benchmark file, by the deciding length."""
    report = report.filter(pc.equal(report.column("ngram"), config.ngram))
    per_item = pa.table(
        {
            "benchmark": report.column("benchmark"),
            "testable": pc.greater(report.column("ngrams"), 0).cast(pa.int64()),
            "contaminated": pc.greater(report.column("found"), 0).cast(pa.int64()),
        }
    )
    figures = per_item.group_by("benchmark", use_threads=False).aggregate(
        [("testable", "count"), ("testable", "sum"), ("contaminated", "sum")]
    )
    deciding = holders.filter(pc.equal(pc.bit_wise_and(holders.column("entry"), 1), DECIDING))
    names = items.column("benchmark").take(pc.shift_right(deciding.column("entry"), 1))
    documents = pa.table({"benchmark": names, "id": deciding.column("id")}).group_by(["benchmark", "id"]).aggregate([])
    documents_of = Counter(documents.column("benchmark").to_pylist())
    rows = [
        {
            "benchmark": row["benchmark"],
            "items": row["testable_count"],
            "testable": row["testable_sum"],
            "contaminated": row["contaminated_sum"],
            "share": row["contaminated_sum"] / max(1, row["testable_sum"]),
            "documents": documents_of[row["benchmark"]],
        }
        for row in figures.to_pylist()
    ]
    return pa.Table.from_pylist(rows)


def _merged(rows: Positions, starts: Positions, ends: Positions) -> tuple[Positions, Positions, Positions]:
    """Merge overlapping windows of a row; windows are sorted by row and start."""
    merged: list[list[int]] = []
    for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True):
        if merged and merged[-1][0] == row and start <= merged[-1][2]:
            merged[-1][2] = max(merged[-1][2], end)
        else:
            merged.append([row, start, end])
    columns = np.array(merged, dtype=np.int64).reshape(-1, 3).T
    return columns[0], columns[1], columns[2]


def _name(index: NgramIndex, items: pa.Table, ngram: int) -> str:
    """`FILE#ITEM` of the first item that an n-gram decides for."""
    entries = index.entries[index.borders[ngram] : index.borders[ngram + 1]]
    item = int(entries[entries % 2 == DECIDING][0]) // 2
    return f"{items.column('benchmark')[item]}#{items.column('item')[item]}"
