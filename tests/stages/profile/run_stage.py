"""The profile stage on small corpora in memory."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from data_schemas.artifact_kinds import CORPUS
from data_schemas.manifest import Volume
from data_schemas.tables import DOCUMENTS, FUNNEL, REJECTS
from infra.progress import SilentListener
from infra.store.artifacts import Artifact, ArtifactStore
from infra.workers.partitions import PartitionMap
from stages.profile.stage import ProfileStage
from stages.stage import StageContext
from tests.stores import commit


def document(name: str, text: str, **columns: Any) -> dict[str, Any]:
    """A row of the documents table."""
    return {"id": name, "text": text, "source": "tests", "path": name, "genre": "tests", **columns}


def corpus(
    train: Sequence[Mapping[str, Any]], held_out: Sequence[Mapping[str, Any]] = (), files: int = 1, funnel: Any = ()
) -> Artifact:
    """A corpus with its documents in some files."""
    store = ArtifactStore(f"memory://profile-{uuid.uuid4().hex}")
    out = store.writer("dedup", "a" * 64, "test-run", CORPUS)
    for index in range(files):
        for split, rows in (("train", train), ("held_out", held_out)):
            table = pa.Table.from_pylist([dict(row) for row in rows[index::files]], DOCUMENTS)
            out.write_table(f"{split}/{index:05d}.parquet", table)
        out.write_table(f"rejects/{index:05d}.parquet", REJECTS.empty_table())
        rows = [dict(zip(FUNNEL.names, row, strict=True)) for row in list(funnel)[index::files]]
        out.write_table(f"funnel/{index:05d}.parquet", pa.Table.from_pylist(rows, FUNNEL))
    texts = [row["text"].encode() for row in (*train, *held_out)]
    out.volume = Volume(documents=len(texts), text_bytes=sum(map(len, texts)))
    return commit(store, out, "dedup", "a" * 64, CORPUS)


def profile(corpus: Artifact, **config: Any) -> Artifact:
    """The profile of a corpus; without coverage, unless the config has it."""
    stage = ProfileStage()
    store = ArtifactStore(corpus.folder.url.split("/dedup/")[0])
    out = store.writer(stage.name, uuid.uuid4().hex * 2, "test-run", stage.output)
    maps = PartitionMap(out.folder, stage.name, stage.output, out.attempt)
    context = StageContext("test-run", maps, out.folder.child("work"), SilentListener())
    stage.run(stage.Config.model_validate({"coverage": None} | config), {"corpus": corpus}, out, context)
    return commit(store, out, stage.name, out.folder.url.rsplit("/", 1)[1], stage.output)


def figures(profile: Artifact, name: str = "all") -> dict[Any, float]:
    """Figures of one slice: measure, or measure and item -> value."""
    rows = profile.read_table("measures.arrow").to_pylist()
    return {
        row["measure"] if row["item"] is None else (row["measure"], row["item"]): row["value"]
        for row in rows
        if row["slice"] == name
    }
