"""Sample of a slice's documents: the same in any order of partitions, with an equal number of each genre.

- `DocumentSample`: which documents are kept; `empty`, `add`, `merge`
- `SampledDocument`, `sampled`: the documents of a state with their weights
- `stratified_interval`: mean over the slice with its confidence interval

A document's place in a random order is a hash of its id. Of each stratum the first `per_stratum` are kept (bottom-k
sampling, Cohen & Kaplan 2007): the union of two states has the documents that one state of all would have. Strata are
buckets of genres, so that a rare genre is seen too; the estimates weight it by its true number of documents. Documents
far down the order, which a corpus of the expected size will not need, are not kept at all, so that the states of a
thousand partitions are together little larger than one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from stages.common.statistics import Interval
from stages.profile.analysis import State

STRATA = 64
"""Buckets of genres."""
PASSAGE = 1_500
"""Characters of a document that are kept: one passage, somewhere in it."""
_NEARBY = 80
"""Characters in which a passage may lose the rest of a word."""
RESERVE = 20
"""A stratum is sampled in full if it has at least one `RESERVE`-th of the documents."""
Z = 1.959964
"""Deviations of a 95 % interval."""
Floats = npt.NDArray[np.float64]


class SampledDocument(NamedTuple):
    """A document of the sample."""

    order: int
    """Its place in the random order: 63 bits."""
    id: str
    genre: str
    language: str
    """Empty if unknown."""
    passage: str
    weight: float
    """Documents of the slice for which it stands."""


class DocumentSample:
    """The rule by which documents are kept.

    Attributes:
        per_stratum: documents kept of each stratum.
        expected: documents of the corpus, as far as known; decides only how much is carried on, if `None` everything.
    """

    def __init__(self, per_stratum: int = 400, expected: int | None = None) -> None:
        self.per_stratum = per_stratum
        share = 1.0 if not expected else min(1.0, RESERVE * per_stratum / expected)
        self._last = int(share * (2**63 - 1))

    def empty(self) -> State:
        """No documents."""
        return {}

    def add(self, state: State, documents: pa.RecordBatch) -> State:
        """State with more documents."""
        ids, genres = documents.column("id").to_pylist(), documents.column("genre").to_pylist()
        languages, texts = documents.column("language"), documents.column("text")
        more: State = {}
        for row, (identifier, genre) in enumerate(zip(ids, genres, strict=True)):
            stratum = more.setdefault(
                str(xxhash.xxh32_intdigest(genre.encode()) % STRATA), {"documents": 0, "sample": []}
            )
            stratum["documents"] += 1
            order = xxhash.xxh64_intdigest(identifier.encode(), seed=1) >> 1
            if order <= self._last:
                stratum["sample"].append((order, row))
        for stratum in more.values():
            kept = sorted(stratum["sample"])[: self.per_stratum]
            stratum["sample"] = [
                [order, ids[row], genres[row], languages[row].as_py() or "", _passage(texts[row].as_py(), order)]
                for order, row in kept
            ]
        return self.merge(state, more)

    def merge(self, first: State, second: State) -> State:
        """State of the documents of both."""
        return {bucket: self._merged(first.get(bucket), second.get(bucket)) for bucket in sorted({*first, *second})}

    def _merged(self, first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> dict[str, Any]:
        if first is None or second is None:
            return dict(first or second or {})
        sample = sorted([*first["sample"], *second["sample"]])[: self.per_stratum]
        return {"documents": first["documents"] + second["documents"], "sample": sample}


def sampled(state: State) -> list[SampledDocument]:
    """Documents of a state in their random order."""
    rows = [
        SampledDocument(order, name, genre, language, passage, stratum["documents"] / len(stratum["sample"]))
        for stratum in state.values()
        for order, name, genre, language, passage in stratum["sample"]
    ]
    return sorted(rows)


def is_whole(state: State) -> bool:
    """True if every document of the slice is in the sample, and none so long that it may be there in part."""
    sizes = (len(row[-1]) for stratum in state.values() for row in stratum["sample"])
    complete = all(stratum["documents"] == len(stratum["sample"]) for stratum in state.values())
    return complete and all(size < PASSAGE - 2 * _NEARBY for size in sizes)


def stratified_interval(values: npt.ArrayLike, documents: Sequence[SampledDocument]) -> Interval:
    """Mean of a value over all documents of the slice, 95 % (Cochran 1977, 5.3 and 5.4).

    A stratum whose documents all have the same value counts as if one of them differed.

    Args:
        values: (documents,) value of each document of the sample, 0 to 1.
        documents: the sample; documents of equal weight count as a stratum.
    """
    numbers = np.asarray(values, dtype=np.float64)
    weights = np.array([document.weight for document in documents])
    total = weights.sum()
    mean, variance = float(numbers @ weights / total), 0.0
    for weight in np.unique(weights):
        stratum = numbers[weights == weight]
        if weight > 1 and len(stratum) > 1:
            share = weight * len(stratum) / total
            spread = max(stratum.var(ddof=1), 1 / len(stratum) if np.ptp(stratum) == 0 else 0.0)
            variance += share**2 * (1 - 1 / weight) * spread / len(stratum)
    reach = Z * math.sqrt(variance)
    return Interval(mean, max(mean - reach, 0.0), min(mean + reach, 1.0))


def _passage(text: str, order: int) -> str:
    """`PASSAGE` characters from a place that the document's hash chooses, whole words where there are spaces."""
    if len(text) <= PASSAGE:
        return text
    start = order % (len(text) - PASSAGE + 1)
    passage = text[start : start + PASSAGE]
    if start and not text[start - 1].isspace():
        passage = passage[_first_space(passage) :]
    return passage.strip()


def _first_space(passage: str) -> int:
    """Position of the first white space; 0 if there is none nearby, as in scripts without spaces."""
    return next((position for position, character in enumerate(passage[:_NEARBY]) if character.isspace()), 0)
