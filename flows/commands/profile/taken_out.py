"""Documents that one corpus has and another lacks: how many, of which genre, source and language, why, and examples.

Documents are the same if their ids are. Of a corpus of more than `MAX_IDS` documents those with a small hash of the id
are looked at, the same ones in both corpora, so that memory stays flat; the counts are estimates then.

- `Taken`: documents of one corpus that the other lacks
- `taken_out`: both sides; None if the two have no document in common
- `document_files`, `batches`: the documents of a corpus
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from flows.commands.why import KEPT_UNDER
from infra.store.artifacts import Artifact, ArtifactStore

MAX_IDS = 50_000
"""Documents of a corpus in memory, about."""
MAX_EXAMPLES = 24
EXAMPLES_OF_A_GENRE = 3
EXCERPT_CHARACTERS = 400
FIELDS = ("genre", "source", "language", "reason")
HASHES = 2**64
UNKNOWN = "not known"


class Document(NamedTuple):
    """A document without its text."""

    genre: str
    source: str
    language: str
    file: str


class Example(NamedTuple):
    """Beginning of a document that the other corpus lacks."""

    document_id: str
    genre: str
    reason: str
    """Stage and rule that removed it."""
    excerpt: str


class Share(NamedTuple):
    """Documents with one value of a field."""

    missing: int
    """Documents that the other corpus lacks."""
    documents: int
    """Documents of the corpus; for a reason, all that the other lacks."""


@dataclass(frozen=True)
class Taken:
    """Documents of one corpus that the other lacks; counts are estimates if `rate` is below 1."""

    missing: int
    documents: int
    rate: float
    """Share of the documents that was looked at."""
    by: dict[str, dict[str, Share]]
    """genre, source, language or reason -> value -> documents, the most first."""
    examples: list[Example]

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        by = {field: {name: row._asdict() for name, row in values.items()} for field, values in self.by.items()}
        return {**asdict(self), "by": by, "examples": [row._asdict() for row in self.examples]}


def taken_out(store: ArtifactStore, first: Artifact, second: Artifact) -> tuple[Taken, Taken] | None:
    """Documents of `first` that `second` lacks, and of `second` that `first` lacks."""
    counts = [sum(_rows(corpus, path) for path in document_files(corpus)) for corpus in (first, second)]
    rate = min(1.0, MAX_IDS / max(1, *counts))
    ours, theirs = _sampled(first, rate), _sampled(second, rate)
    if not ours.keys() & theirs.keys():
        return None
    return _taken(store, first, second, ours, theirs, rate), _taken(store, second, first, theirs, ours, rate)


def document_files(corpus: Artifact) -> list[str]:
    """Paths of the Parquet files with the documents of a corpus."""
    return [path for pattern in KEPT_UNDER[corpus.manifest.kind] for path in corpus.paths(pattern)]


def _hash(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode())


def _rows(corpus: Artifact, path: str) -> int:
    with corpus.open(path) as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


def _sampled(corpus: Artifact, rate: float) -> dict[str, Document]:
    """Id -> document, for the share `rate` of all ids with the smallest hashes."""
    limit, documents = rate * HASHES, {}
    for path in document_files(corpus):
        for batch in batches(corpus, path, ["id", "genre", "source", "language"]):
            for name, genre, source, language in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if rate == 1 or _hash(name) < limit:
                    documents[name] = Document(genre, source, language or UNKNOWN, path)
    return documents


def batches(artifact: Artifact, path: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a Parquet file, a part of its rows at a time."""
    with artifact.open(path) as file:
        for batch in pq.ParquetFile(file).iter_batches(columns=columns):
            yield batch.select(columns)


def _taken(
    store: ArtifactStore,
    corpus: Artifact,
    other: Artifact,
    ours: Mapping[str, Document],
    theirs: Mapping[str, Document],
    rate: float,
) -> Taken:
    missing = {name: row for name, row in ours.items() if name not in theirs}
    reasons = _reasons(store, other, missing.keys())
    by = {field: _shares(missing.values(), ours.values(), field, rate) for field in FIELDS[:3]}
    counted = Counter(reasons.get(name, UNKNOWN) for name in missing)
    by["reason"] = {
        reason: Share(round(number / rate), round(len(missing) / rate)) for reason, number in counted.most_common()
    }
    examples = _examples(corpus, missing, reasons)
    return Taken(round(len(missing) / rate), round(len(ours) / rate), rate, by, examples)


def _shares(missing: Iterable[Document], all_rows: Iterable[Document], field: str, rate: float) -> dict[str, Share]:
    absent = Counter(getattr(row, field) for row in missing)
    present = Counter(getattr(row, field) for row in all_rows)
    values = sorted(absent, key=lambda value: (-absent[value], value))
    return {value: Share(round(absent[value] / rate), round(present[value] / rate)) for value in values}


def _reasons(store: ArtifactStore, corpus: Artifact, names: Iterable[str]) -> dict[str, str]:
    """Document -> `clean: too few words`, from the rejects of a corpus and of the corpora that it was made of."""
    wanted, reasons = pa.array(list(names), pa.string()), dict[str, str]()
    pending: list[Artifact | None] = [corpus] if len(wanted) else []
    while pending:
        artifact = pending.pop()
        if artifact is None:  # removed from the store
            continue
        for path in artifact.paths("rejects/*.parquet"):
            for batch in batches(artifact, path, ["id", "reason"]):
                rows = batch.filter(pc.is_in(batch.column("id"), wanted))
                for name, reason in zip(*(column.to_pylist() for column in rows.columns), strict=True):
                    reasons[name] = f"{artifact.manifest.stage}: {reason.replace('_', ' ')}"
        pending += [store.find_equal(ref) for ref in artifact.manifest.inputs.values()]
    return reasons


def _examples(corpus: Artifact, missing: Mapping[str, Document], reasons: Mapping[str, str]) -> list[Example]:
    """Documents with the smallest hashes, of the genres that lack most; their texts are read from their files alone."""
    sizes = Counter(row.genre for row in missing.values())
    chosen: list[str] = []
    for genre in sorted(sizes, key=lambda name: (-sizes[name], name)):
        names = sorted((name for name, row in missing.items() if row.genre == genre), key=_hash)
        chosen += names[:EXAMPLES_OF_A_GENRE]
    chosen = chosen[:MAX_EXAMPLES]
    texts = _texts(corpus, {name: missing[name].file for name in chosen})
    return [
        Example(name, missing[name].genre, reasons.get(name, UNKNOWN), texts[name][:EXCERPT_CHARACTERS])
        for name in chosen
    ]


def _texts(corpus: Artifact, files: Mapping[str, str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    wanted = pa.array(list(files), pa.string())
    for path in dict.fromkeys(files.values()):
        for batch in batches(corpus, path, ["id", "text"]):
            rows: list[dict[str, Any]] = batch.filter(pc.is_in(batch.column("id"), wanted)).to_pylist()
            texts |= {row["id"]: row["text"] for row in rows}
    return texts
