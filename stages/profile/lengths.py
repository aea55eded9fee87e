"""Lengths of documents in words, characters and bytes."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.profile.analysis import Analysis, Measure, State
from stages.profile.sketches import distribution
from stages.profile.words.document_words import document_words

UNITS = ("words", "characters", "bytes")
QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


class Lengths(Analysis):
    """Documents, total and mean length, quantiles, and documents by powers of two of their length."""

    name = "lengths"

    def empty(self) -> State:
        """A distribution per unit."""
        return {unit: distribution.empty() for unit in UNITS}

    def add(self, state: State, documents: pa.RecordBatch) -> State:
        """Add the lengths of more documents."""
        texts = documents.column("text")
        lengths = (document_words(documents).counts, pc.utf8_length(texts), pc.binary_length(texts))
        return {
            unit: distribution.add(state[unit], np.asarray(numbers))
            for unit, numbers in zip(UNITS, lengths, strict=True)
        }

    def merge(self, first: State, second: State) -> State:
        """Merge unit by unit."""
        return {unit: distribution.merge(first[unit], second[unit]) for unit in UNITS}

    def measures(self, state: State) -> Sequence[Measure]:
        """`documents`, and `length.UNIT.{total,mean,quantile,histogram}`."""
        rows = [Measure("documents", distribution.total(state["bytes"]), "documents")]
        for unit in UNITS:
            numbers = state[unit]
            rows.append(Measure(f"length.{unit}.total", numbers["sum"], unit))
            if not distribution.total(numbers):
                continue
            rows.append(Measure(f"length.{unit}.mean", distribution.mean(numbers), f"{unit}/document"))
            for share in QUANTILES:
                value, low, high = distribution.quantile(numbers, share)
                exact = not numbers["coarse"]
                rows.append(Measure(f"length.{unit}.quantile", value, unit, f"{share:.0%}", low, high, exact))
            for bucket, count in distribution.octaves(numbers).items():
                rows.append(Measure(f"length.{unit}.histogram", count, "documents", bucket))
        return rows
