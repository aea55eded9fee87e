"""The contract of every analysis of the profile, and the rows that it yields.

- `Analysis`: `empty`, `add`, `merge`, `measures`; optionally `examples`, `compare` and `fitted`
- `Measure`, `Example`: a row of the profile's tables, without its slice
- `measures_table`, `examples_table`: the tables of all slices

The stage calls `add` with the documents of one slice of one split of one partition, `merge` over partitions and splits,
and `measures` for each slice; an analysis knows nothing of slices. States are written between these steps, without
pickle: a state consists of dicts with string keys, lists, strings, numbers, booleans, None and numpy arrays.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from data_schemas.tables import EXAMPLES, MEASURES

State = Any
EXCERPT_CHARACTERS = 400


class Measure(NamedTuple):
    """One figure of a slice."""

    measure: str
    """Dotted name, such as `entropy.unigram.miller_madow`."""
    value: float
    unit: str
    """`bits/word`, `documents`, `share`, `bytes` ..."""
    item: str | None = None
    """Bucket, entity, topic ..."""
    low: float | None = None
    high: float | None = None
    """Ends of the stated error."""
    exact: bool = True
    """False if estimated from a sketch or a sample."""


class Example(NamedTuple):
    """A document that shows what a figure counts."""

    measure: str
    item: str | None
    document_id: str
    excerpt: str
    """Cut to `EXCERPT_CHARACTERS`."""


class Analysis(Protocol):
    """One kind of figures, from states of bounded size that merge.

    The same documents give the same figures in any order and any division into batches, up to the stated error.
    """

    name: str
    """Unique; part of the name of intermediate files."""
    is_fitted: bool = False
    """Slices are measured by what `fitted` returns."""

    def empty(self) -> State:
        """State of no documents."""
        ...

    def add(self, state: State, documents: pa.RecordBatch) -> State:
        """State after more documents, whose columns are those of `DOCUMENTS`; may change `state`."""
        ...

    def merge(self, first: State, second: State) -> State:
        """State of the documents of both, associative and commutative up to the stated error; may change both."""
        ...

    def measures(self, state: State) -> Sequence[Measure]:
        """Figures of a slice; also of a slice without documents, or without one that the analysis can measure."""
        ...

    def examples(self, state: State) -> Sequence[Example]:
        """Example documents of a slice."""
        return ()

    def compare(self, training: State, held_out: State) -> Sequence[Measure]:
        """Differences between the two splits of a slice; must not change the states."""
        return ()

    def fitted(self, whole: State) -> "Analysis":
        """The analysis with which slices are measured, from the state of all documents: what is learned from the
        corpus, such as its topics, is the same for all slices. Must not change the state."""
        return self


def measures_table(slices: Mapping[str, Sequence[Measure]]) -> pa.Table:
    """`MEASURES` of all slices, in their order."""
    rows = [{"slice": name, **measure._asdict()} for name, measures in slices.items() for measure in measures]
    return pa.Table.from_pylist(rows, MEASURES)


def examples_table(slices: Mapping[str, Sequence[Example]]) -> pa.Table:
    """`EXAMPLES` of all slices, in their order, with the excerpts cut."""
    rows = [
        {"slice": name, **example._asdict(), "excerpt": example.excerpt[:EXCERPT_CHARACTERS]}
        for name, examples in slices.items()
        for example in examples
    ]
    return pa.Table.from_pylist(rows, EXAMPLES)
