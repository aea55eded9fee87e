"""Samples of the corpus that do not depend on its partitioning: the documents whose ids have the smallest hashes.

- `Draw`: population and size of a sample
- `draw_documents`: the sampled documents, cleaned; memory is bounded by the size of the samples

A first pass reads the ids only, a second one the texts of the sampled documents. A sampled document that a rule drops
is not replaced, so that the sample is a function of the ids.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_schemas.errors import InputDataError
from infra.store.artifacts import Artifact
from infra.workers.partitions import Partition, PartitionMap, PartitionResult, PartitionWriter

CleanText = Callable[[str], Callable[[Mapping[str, Any]], str | None]]
"""Function from a file to a function from a row of its documents table to the cleaned text; None if a rule drops it.
Picklable."""


@dataclass(frozen=True)
class Draw:
    """One sample to draw."""

    name: str
    """The config field that requests it."""
    documents: int
    """Maximum number of documents."""
    names: frozenset[str] | None = None
    """Genres and sources to draw from; None for all."""

    def includes(self, genre: str, source: str) -> bool:
        """True for documents of the population."""
        return self.names is None or genre in self.names or source in self.names


def draw_documents(
    draws: Sequence[Draw], documents: Artifact, clean_text: CleanText, partitions: PartitionMap, files: list[Partition]
) -> list[PartitionResult]:
    """Draw the samples: each result has `sample.arrow` with the columns draw, key (uint64) and text.

    Raises:
        InputDataError: if no document has a requested genre or source.
    """
    keyed = partitions.map("sample_keys", partial(keys_partition, documents, tuple(draws)), files)
    keys = pa.concat_tables([result.read_table("keys.arrow") for result in keyed])
    _check_names(draws, [result.read_table("names.arrow") for result in keyed])
    largest = {draw.name: smallest[-1] for draw in draws if (smallest := _smallest(keys, draw))}
    texts = partial(texts_partition, documents, clean_text, tuple(draws), largest)
    return partitions.map("sample_texts", texts, files)


def keys_partition(documents: Artifact, draws: Sequence[Draw], path: str, out: PartitionWriter) -> None:
    """Write the smallest keys of one file of documents, for each draw.

    Args:
        documents: artifact with the documents.
        draws: the samples to draw.
        path: the file, `documents/NAME.parquet`.
        out: receives `keys.arrow` (draw, key) and `names.arrow` (genre, source).
    """
    rows = documents.read_table(path).select(["id", "genre", "source"]).to_pylist()
    keys: list[tuple[str, int]] = []
    for draw in draws:
        population = (_key(row["id"]) for row in rows if draw.includes(row["genre"], row["source"]))
        keys += [(draw.name, key) for key in sorted(population)[: draw.documents]]
    schema = pa.schema({"draw": pa.string(), "key": pa.uint64()})
    out.write_table("keys.arrow", pa.Table.from_arrays(_columns(keys, schema), schema=schema))
    schema = pa.schema({"genre": pa.string(), "source": pa.string()})
    names = sorted({(row["genre"], row["source"]) for row in rows})
    out.write_table("names.arrow", pa.Table.from_arrays(_columns(names, schema), schema=schema))


def texts_partition(
    documents: Artifact,
    clean_text: CleanText,
    draws: Sequence[Draw],
    largest: Mapping[str, int],
    path: str,
    out: PartitionWriter,
) -> None:
    """Write the cleaned texts of one file's sampled documents.

    Args:
        documents: artifact with the documents.
        clean_text: returns a function for the file, and that a document's text after the rules.
        draws: the samples to draw.
        largest: draw -> largest key in the sample.
        path: the file, `documents/NAME.parquet`.
        out: receives `sample.arrow` (draw, key, text).
    """
    sample: list[tuple[str, int, str]] = []
    kept_text = clean_text(path)
    for row in documents.read_table(path).to_pylist():
        key = _key(row["id"])
        names = [d.name for d in draws if key <= largest.get(d.name, -1) and d.includes(row["genre"], row["source"])]
        if names and (text := kept_text(row)) is not None:
            sample += [(name, key, text) for name in names]
    schema = pa.schema({"draw": pa.string(), "key": pa.uint64(), "text": pa.large_string()})
    out.write_table("sample.arrow", pa.Table.from_arrays(_columns(sample, schema), schema=schema))


def sampled(results: Sequence[PartitionResult], draw: str) -> tuple[np.ndarray[Any, np.dtype[np.uint64]], list[str]]:
    """Keys and texts of one draw, sorted by key."""
    table = pa.concat_tables([result.read_table("sample.arrow") for result in results])
    table = table.filter(pc.equal(table["draw"], draw)).sort_by([("key", "ascending"), ("text", "ascending")])
    return table["key"].to_numpy(), table["text"].to_pylist()


def _smallest(keys: pa.Table, draw: Draw) -> list[int]:
    candidates = keys.filter(pc.equal(keys["draw"], draw.name))["key"]
    return sorted(candidates.to_pylist())[: draw.documents]


def _check_names(draws: Sequence[Draw], names: Sequence[pa.Table]) -> None:
    known = Counter(name for table in names for column in ("genre", "source") for name in table[column].to_pylist())
    for draw in draws:
        if unknown := sorted((draw.names or frozenset()) - set(known)):
            raise InputDataError(
                f"{draw.name}: no document has the genre or source {unknown[0]!r}; the corpus has "
                f"{', '.join(sorted(known))}"
            )


def _key(document_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(document_id.encode(), digest_size=8).digest(), "little")


def _columns(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> list[pa.Array]:
    return [pa.array([row[index] for row in rows], field.type) for index, field in enumerate(schema)]
