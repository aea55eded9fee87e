"""Samples of the corpus that do not depend on its partitions: the documents whose ids have the smallest hashes.

- `Draw`: what to sample, and how much
- `draw_documents`: the sampled documents, cleaned, in memory that the samples bound

Only ids are read first; then the texts of those documents alone. A sampled document that a rule drops is not replaced,
so that what is sampled stays a function of the ids.
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

CleanText = Callable[[Mapping[str, Any]], str | None]
"""A row of the documents table to its text after the rules; None where one drops it. Picklable."""


@dataclass(frozen=True)
class Draw:
    """One sample to draw."""

    name: str
    """The config field that asks for it."""
    documents: int
    """How many at most."""
    of: frozenset[str] | None = None
    """Genres and sources to draw from; None for all."""

    def wants(self, genre: str, source: str) -> bool:
        """True for documents to draw from."""
        return self.of is None or genre in self.of or source in self.of


def draw_documents(
    draws: Sequence[Draw], documents: Artifact, clean_text: CleanText, partitions: PartitionMap, files: list[Partition]
) -> list[PartitionResult]:
    """The samples: each result has `sample.arrow` with the columns draw, key (uint64) and text.

    Raises:
        InputDataError: for a genre or source that no document has.
    """
    keyed = partitions.map("sample_keys", partial(keys_partition, documents, tuple(draws)), files)
    keys = pa.concat_tables([result.read_table("keys.arrow") for result in keyed])
    _check_names(draws, [result.read_table("names.arrow") for result in keyed])
    largest = {draw.name: found[-1] for draw in draws if (found := _smallest(keys, draw))}
    texts = partial(texts_partition, documents, clean_text, tuple(draws), largest)
    return partitions.map("sample_texts", texts, files)


def keys_partition(documents: Artifact, draws: Sequence[Draw], path: str, out: PartitionWriter) -> None:
    """The smallest keys of one file of documents, for each draw.

    Args:
        documents: the artifact they are in.
        draws: what to sample.
        path: the file, `documents/NAME.parquet`.
        out: gets `keys.arrow` (draw, key) and `names.arrow` (genre, source).
    """
    rows = documents.read_table(path).select(["id", "genre", "source"]).to_pylist()
    keys: list[tuple[str, int]] = []
    for draw in draws:
        wanted = (_key(row["id"]) for row in rows if draw.wants(row["genre"], row["source"]))
        keys += [(draw.name, key) for key in sorted(wanted)[: draw.documents]]
    schema = pa.schema({"draw": pa.string(), "key": pa.uint64()})
    out.write_table("keys.arrow", pa.Table.from_arrays(_columns(keys, schema), schema=schema))
    names = pa.schema({"genre": pa.string(), "source": pa.string()})
    found = sorted({(row["genre"], row["source"]) for row in rows})
    out.write_table("names.arrow", pa.Table.from_arrays(_columns(found, names), schema=names))


def texts_partition(
    documents: Artifact,
    clean_text: CleanText,
    draws: Sequence[Draw],
    largest: Mapping[str, int],
    path: str,
    out: PartitionWriter,
) -> None:
    """The texts of one file's sampled documents.

    Args:
        documents: the artifact they are in.
        clean_text: what the rules make of one.
        draws: what to sample.
        largest: draw -> the largest key in the sample.
        path: the file, `documents/NAME.parquet`.
        out: gets `sample.arrow` (draw, key, text).
    """
    sample: list[tuple[str, int, str]] = []
    for row in documents.read_table(path).to_pylist():
        key = _key(row["id"])
        chosen = [d.name for d in draws if key <= largest.get(d.name, -1) and d.wants(row["genre"], row["source"])]
        if chosen and (text := clean_text(row)) is not None:
            sample += [(name, key, text) for name in chosen]
    schema = pa.schema({"draw": pa.string(), "key": pa.uint64(), "text": pa.large_string()})
    out.write_table("sample.arrow", pa.Table.from_arrays(_columns(sample, schema), schema=schema))


def sampled(results: Sequence[PartitionResult], draw: str) -> tuple[np.ndarray[Any, np.dtype[np.uint64]], list[str]]:
    """Keys and texts of one draw, by key."""
    table = pa.concat_tables([result.read_table("sample.arrow") for result in results])
    table = table.filter(pc.equal(table["draw"], draw)).sort_by([("key", "ascending"), ("text", "ascending")])
    return table["key"].to_numpy(), table["text"].to_pylist()


def _smallest(keys: pa.Table, draw: Draw) -> list[int]:
    of_draw = keys.filter(pc.equal(keys["draw"], draw.name))["key"]
    return sorted(of_draw.to_pylist())[: draw.documents]


def _check_names(draws: Sequence[Draw], names: Sequence[pa.Table]) -> None:
    known = Counter(name for table in names for column in ("genre", "source") for name in table[column].to_pylist())
    for draw in draws:
        if unknown := sorted((draw.of or frozenset()) - set(known)):
            raise InputDataError(
                f"{draw.name}: no document has the genre or source {unknown[0]!r}; there are {', '.join(sorted(known))}"
            )


def _key(document_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(document_id.encode(), digest_size=8).digest(), "little")


def _columns(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> list[pa.Array]:
    return [pa.array([row[at] for row in rows], field.type) for at, field in enumerate(schema)]
