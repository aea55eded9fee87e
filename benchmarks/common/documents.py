"""Documents for the benchmarks: excerpts of real corpora with planted near-duplicates, or generated.

- `real_documents`: 2-4 KB excerpts of the corpora's texts
- `planted`: the same and near-duplicates of some, with words replaced
- `generated`: any number, each from its own seed
- `write_documents`: an artifact of documents, as the stages read it
"""

import gzip
import itertools
import json
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from data_schemas.manifest import Manifest, Volume, content_digest
from data_schemas.tables import DOCUMENTS
from infra.store.artifacts import Artifact, ArtifactStore

CORPORA = ("news", "web", "wiki", "technical", "books")
Document = tuple[str, str]
"""Id and text."""


def real_documents(data: Path, count: int) -> list[Document]:
    """A shuffled sample of `count` excerpts of 2-4 KB, cut at paragraph ends from the corpora in `data`."""
    excerpts = []
    for corpus in CORPORA:
        with gzip.open(data / "corpus" / f"{corpus}.jsonl.gz", "rt") as lines:
            for line in lines:
                row = json.loads(line)
                excerpts += [(f"{row['id']}#{number}", text) for number, text in enumerate(_excerpts(row["text"]))]
    return random.Random(0).sample(excerpts, count)


def _excerpts(text: str) -> Iterator[str]:
    excerpt = ""
    for paragraph in text.split("\n\n"):
        if len(excerpt) + len(paragraph) > 4000:
            excerpt = ""
        excerpt += paragraph + "\n\n"
        if len(excerpt) >= 2000:
            yield excerpt
            excerpt = ""


def planted(documents: list[Document], count: int) -> list[Document]:
    """The documents and `count` near-duplicates of some, with words replaced for a Jaccard similarity of 0.5-0.98."""
    generator, copies = random.Random(1), []
    for name, text in generator.sample(documents, count):
        words = text.split(" ")
        similarity = generator.uniform(0.5, 0.98)
        changes = max(1, round(len(words) * (1 - similarity) / (1 + similarity) / 5))
        for position in generator.sample(range(len(words)), min(changes, len(words))):
            words[position] = f"{words[position][:2]}{generator.randrange(1000)}"
        copies.append((f"{name}~planted", " ".join(words)))
    shuffled = documents + copies
    generator.shuffle(shuffled)
    return shuffled


def generated(start: int, count: int) -> Iterator[Document]:
    """Documents number `start` and up, of about 1 KB; every tenth repeats an earlier one, with words changed."""
    for number in range(start, start + count):
        is_copy = number % 10 == 9
        words = _WORDS[np.random.default_rng(number // 20 if is_copy else number).integers(0, len(_WORDS), 170)]
        if is_copy:
            changes = np.random.default_rng(number)
            words[changes.integers(0, len(words), changes.integers(0, 8))] = f"changed{number}"
        yield f"d{number:09d}", " ".join(words)


_WORDS = np.array(
    ["".join(letters) for letters in itertools.product("bdklmnrst", "aeiou", "bdklmnrst", "aeio", "nrs", ["", "ta"])],
    dtype=object,
)


def write_documents(url: str, files: Iterable[Iterable[Document]]) -> Artifact:
    """An uncommitted artifact with one file per group of documents."""
    store = ArtifactStore(url)
    out = store.writer("ingest", "a" * 64, "benchmark", RAW_DOCUMENTS)
    for number, documents in enumerate(files):
        rows = [
            {"id": name, "text": text, "source": "benchmark", "path": "", "genre": "any"} for name, text in documents
        ]
        out.write_table(f"documents/{number:05d}.parquet", pa.Table.from_pylist(rows, DOCUMENTS))
    entries, now = sorted(out.files.values(), key=lambda entry: entry.path), datetime.now(UTC)
    manifest = Manifest(
        stage="ingest", stage_version=1, kind=RAW_DOCUMENTS.name, kind_version=RAW_DOCUMENTS.version, key="a" * 64,
        attempt="benchmark", digest=content_digest(entries), config={}, inputs={}, files=entries, counts={},
        metrics={}, volume=Volume(), code={}, packages={}, device={}, started=now, ended=now, phases={},
        peak_memory_bytes=0,
    )  # fmt: skip
    return Artifact(out.folder, manifest)
