"""The two passes of the profile: the files of the corpus, then its slices.

- `profile_partition`: the states of one file, cell by cell
- `StateFile`: where a file's states are stored
- `fitted`: the analyses with what they learn from the whole corpus
- `same_slices`: slices that consist of the same states
- `measure_slice`: merges the states of a slice and computes its figures
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.store.artifacts import Artifact
from infra.workers.exchange import Pieces, write_pieces
from infra.workers.partitions import PartitionResult, PartitionWriter
from stages.profile.analysis import Analysis, Example, Measure, State, examples_table, measures_table
from stages.profile.slices import SPLITS, Slices
from stages.profile.state_codec import decode, encode

BATCH_BYTES = 4_000_000
"""Text that is analyzed at once; a longer document is a batch of its own."""
GROUP = 8
"""States that are merged among themselves before they are merged with all others."""
STATES = pa.schema([("analysis", pa.string()), ("state", pa.large_binary())])
STATES_FILE, WHOLE_FILE, CELLS_FILE = "states", "whole", "cells.json"


class StateFile(NamedTuple):
    """The states of one cell of one file of the corpus."""

    split: str
    pieces: Pieces
    number: int


def profile_partition(
    corpus: Artifact, analyses: Sequence[Analysis], slices: Slices, path: str, out: PartitionWriter
) -> None:
    """Analyze the documents of one file.

    Args:
        corpus: artifact with the documents.
        analyses: what is measured.
        slices: the slices of the corpus.
        path: the file, `SPLIT/NAME.parquet`.
        out: receives the states, a piece per cell, the list of the cells, and the file's states of analyses that are
            fitted.
    """
    table = corpus.read_table(path)
    cells, states = [], []
    whole = {analysis.name: analysis.empty() for analysis in analyses if analysis.is_fitted}
    for values, rows in slices.cells(table):
        cells.append(values)
        merged = {analysis.name: analysis.empty() for analysis in analyses}
        for batch in _batches(table, rows):
            for analysis in analyses:
                merged[analysis.name] = analysis.add(merged[analysis.name], batch)
        states.append(_encoded(merged))
        whole = {a.name: a.merge(whole[a.name], merged[a.name]) for a in analyses if a.is_fitted}
    write_pieces(out, STATES_FILE, states, "lz4")
    write_pieces(out, WHOLE_FILE, [_encoded(whole)], "lz4")
    out.write(CELLS_FILE, json.dumps(cells).encode())
    out.count("profiled_documents", len(table))  # the report takes train_documents for what a stage leaves to train on


def _encoded(states: Mapping[str, State]) -> pa.Table:
    encoded = [encode(state) for state in states.values()]
    return pa.table([pa.array(list(states), pa.string()), pa.array(encoded, pa.large_binary())], schema=STATES)


def fitted(analyses: Sequence[Analysis], results: Sequence[PartitionResult]) -> list[Analysis]:
    """The analyses with which slices are measured: those that are fitted learn from the states of all files.

    Args:
        analyses: what is measured.
        results: of `profile_partition`, for each file of the corpus.
    """
    whole = {analysis.name: analysis.empty() for analysis in analyses if analysis.is_fitted}
    for result in results if whole else ():
        for row in Pieces.of(result, WHOLE_FILE, STATES).read(0).to_pylist():
            analysis = next(analysis for analysis in analyses if analysis.name == row["analysis"])
            whole[analysis.name] = analysis.merge(whole[analysis.name], decode(row["state"]))
    return [analysis.fitted(whole[analysis.name]) if analysis.is_fitted else analysis for analysis in analyses]


def _batches(table: pa.Table, rows: npt.NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """Documents in batches of about `BATCH_BYTES`."""
    sizes = pc.binary_length(table.column("text")).to_numpy()[rows]
    numbers = np.cumsum(sizes) // BATCH_BYTES
    for part in np.split(rows, np.flatnonzero(np.diff(numbers)) + 1):
        yield from table.take(pa.array(part)).combine_chunks().to_batches()


def state_files(results: Sequence[tuple[str, PartitionResult]], slices: Slices) -> dict[str, list[StateFile]]:
    """Slice -> the states that it consists of.

    Args:
        results: split and result of each file of the corpus.
        slices: the slices of the corpus.
    """
    files: dict[str, list[StateFile]] = {name: [] for name in slices.names}
    for split, result in results:
        pieces = Pieces.of(result, STATES_FILE, STATES)
        for number, values in enumerate(json.loads(result.folder.read(result.location(CELLS_FILE)))):
            for name in slices.of_cell(split, values):
                files[name].append(StateFile(split, pieces, number))
    return files


def same_slices(files: Mapping[str, Sequence[StateFile]]) -> dict[str, str]:
    """Slice -> the first slice of the same states, itself in most cases: the only genre of a corpus is all of it.

    Args:
        files: of `state_files`.
    """
    first: dict[tuple[tuple[str, int], ...], str] = {}
    return {
        name: first.setdefault(tuple((file.pieces.path, file.number) for file in states), name)
        for name, states in files.items()
    }


def renamed(table: pa.Table, name: str) -> pa.Table:
    """Rows of a slice as those of another one."""
    return table.set_column(0, table.schema.field(0), pa.array([name] * len(table), pa.string()))


class GroupedMerge:
    """Merge of many states of an analysis: those of a few files among themselves first, then with all before.

    The merged state is soon far larger than that of a file, and every merge reads both.
    """

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._merged = analysis.empty()
        self._pending: list[State] = []

    def add(self, state: State) -> None:
        """Merge one more state, now or later."""
        self._pending.append(state)
        if len(self._pending) == GROUP:
            self.result()

    def result(self) -> State:
        """State of all so far."""
        while len(self._pending) > 1:
            pairs = zip(self._pending[::2], [*self._pending[1::2], None], strict=False)
            self._pending = [
                first if second is None else self._analysis.merge(first, second) for first, second in pairs
            ]
        if self._pending:
            self._merged = self._analysis.merge(self._merged, self._pending.pop())
        return self._merged


def measure_slice(analyses: Sequence[Analysis], payload: tuple[str, Sequence[StateFile]], out: PartitionWriter) -> None:
    """Merge the states of a slice, split by split, and write its figures and examples.

    Args:
        analyses: what was measured.
        payload: name of the slice, and its states.
        out: receives `measures.arrow` and `examples.arrow`.
    """
    name, files = payload
    merged = {split: {analysis.name: GroupedMerge(analysis) for analysis in analyses} for split in SPLITS}
    for split, pieces, number in files:
        stored = pieces.read(number)
        encoded = dict(zip(stored.column("analysis").to_pylist(), stored.column("state"), strict=True))
        for analysis in analyses:
            merged[split][analysis.name].add(decode(encoded[analysis.name].as_buffer().to_pybytes()))
    has_both = {split for split, _, _ in files} == set(SPLITS)
    measures: list[Measure] = []
    examples: list[Example] = []
    for analysis in analyses:
        training, held_out = (merged[split][analysis.name].result() for split in SPLITS)
        compared = analysis.compare(training, held_out) if has_both else ()
        whole = analysis.merge(training, held_out)
        measures += [*analysis.measures(whole), *compared]
        examples += analysis.examples(whole)
    out.write_table("measures.arrow", measures_table({name: measures}))
    out.write_table("examples.arrow", examples_table({name: examples}))
