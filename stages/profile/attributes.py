"""Documents by what is declared of them: genre, language, source, licence, year, and the parts of their URL."""

from collections.abc import Sequence
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import xxhash

from stages.profile.analysis import Analysis, Measure, State
from stages.profile.rows import distinct, estimate_measure, top_measures
from stages.profile.sketches import type_counts
from stages.profile.slices import NONE, domain, values_of

CAPACITY = 1 << 16
"""Distinct values of an attribute that are counted exactly."""
TOP = 50
"""Values that are listed."""
NAMED = 4 * TOP
ATTRIBUTES = ("genre", "language", "source", "licence", "year", "domain", "suffix", "scheme")


class Attributes(Analysis):
    """Documents by value of each attribute, and the number of distinct values."""

    name = "attributes"

    def empty(self) -> State:
        """Counts and texts by attribute."""
        return {name: {"counts": type_counts.of(np.empty(0, np.uint64), CAPACITY), "texts": {}} for name in ATTRIBUTES}

    def add(self, state: State, documents: pa.RecordBatch) -> State:
        """Count the values of more documents."""
        more = {}
        for name, values in _values(documents).items():
            hashes = np.array([xxhash.xxh64_intdigest(value.encode()) for value in values], dtype=np.uint64)
            counts = type_counts.of(hashes, CAPACITY)
            first = type_counts.first_tokens(counts, hashes, NAMED)
            more[name] = {"counts": counts, "texts": {hashed: values[token][:200] for hashed, token in first.items()}}
        return self.merge(state, more)

    def merge(self, first: State, second: State) -> State:
        """Merge attribute by attribute."""
        merged = {}
        for name in ATTRIBUTES:
            counts = type_counts.merge(first[name]["counts"], second[name]["counts"], CAPACITY)
            texts = {**first[name]["texts"], **second[name]["texts"]}
            merged[name] = {"counts": counts, "texts": type_counts.still_frequent(counts, texts, NAMED)}
        return merged

    def measures(self, state: State) -> Sequence[Measure]:
        """`ATTRIBUTE.documents` by value, `none` without one, and `ATTRIBUTE.distinct`."""
        rows: list[Measure] = []
        for name, part in state.items():
            rows += top_measures(f"{name}.documents", "documents", part["counts"], part["texts"], TOP)
            if part["counts"]["tokens"]:
                rows.append(estimate_measure(f"{name}.distinct", distinct(part["counts"]), "values"))
        return rows


def _values(documents: pa.RecordBatch) -> dict[str, list[str]]:
    urls = documents.column("url").to_pylist()
    hosts = [domain(url) for url in urls]
    return {
        **{name: values for name, values in values_of(documents).items() if name != "domain"},
        "licence": [licence or NONE for licence in documents.column("licence").to_pylist()],
        "year": [_year(date) for date in documents.column("date").to_pylist()],
        "domain": hosts,
        "suffix": [host.rpartition(".")[2] if "." in host else NONE for host in hosts],
        "scheme": [_scheme(url) for url in urls],
    }


def _year(date: str | None) -> str:
    year = (date or "")[:4]
    return year if len(year) == 4 and year.isdecimal() else NONE


def _scheme(url: str | None) -> str:
    try:
        return urlsplit(url or "").scheme or NONE
    except ValueError:
        return NONE
