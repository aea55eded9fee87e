"""The profile stage on small corpora in memory."""

import uuid
from typing import Any

from infra.progress import SilentListener
from infra.store.artifacts import Artifact, ArtifactStore
from infra.workers.partitions import PartitionMap
from stages.profile.stage import ProfileStage
from stages.stage import StageContext
from tests.stores import commit


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
