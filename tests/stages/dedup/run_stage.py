"""The dedup stage over documents in a store, and what it left."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from infra.progress import SilentListener
from infra.store.artifact_writer import table_bytes
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.filesystem import Folder
from infra.workers.partitions import Engine, PartitionMap
from stages.dedup.config import DedupConfig
from stages.dedup.filter import SURVIVOR, FileFates
from stages.dedup.near_duplicates.clusters import FATES
from stages.dedup.part_files import PartFile
from stages.dedup.stage import DedupStage
from stages.stage import StageContext
from tests.stores import commit, documents_artifact


def memory() -> str:
    """URL of an empty store in memory."""
    return f"memory://store-{uuid.uuid4().hex}"


def run_stage(
    url: str, documents: Artifact, values: Mapping[str, Any], engine: Engine = "inline", workers: int = 1
) -> Artifact:
    """The stage's artifact."""
    stage, config = DedupStage(), DedupConfig.model_validate(values)
    store = ArtifactStore(url)
    out = store.writer("dedup", "b" * 64, "test-run", stage.output)
    maps = PartitionMap(out.folder, "dedup", stage.output, out.attempt, engine, workers)
    stage.run(config, {"documents": documents}, out, StageContext("test-run", maps, out.folder, SilentListener()))
    return commit(store, out, "dedup", "b" * 64, stage.output)


def rows(artifact: Artifact, *folders: str) -> dict[str, dict[str, Any]]:
    """Document id -> its row, in `train/` and `held_out/` or the folders named."""
    paths = [path for folder in folders or ("train", "held_out") for path in artifact.paths(f"{folder}/*")]
    return {row["id"]: row for path in paths for row in artifact.read_table(path).to_pylist()}


def texts(artifact: Artifact) -> dict[str, str]:
    """Document id -> text of what was kept."""
    return {name: row["text"] for name, row in sorted(rows(artifact).items())}


def file_fates(url: str, fates: Sequence[str]) -> FileFates:
    """Fates of one file's documents, none of them similar to another."""
    table = pa.table([fates, *[[None] * len(fates)] * 2], schema=FATES)
    folder, path = Folder(url), f"fates-{uuid.uuid4().hex}.arrow"
    folder.write(path, table_bytes(path, table))
    return FileFates(PartFile(folder, path))


def step_arguments(
    partitions: Sequence[Mapping[str, str]],
) -> tuple[Artifact, list[str], list[FileFates], PartitionMap]:
    """What a step of the stage is called with: documents, names, fates, maps."""
    url = memory()
    documents = documents_artifact(url, list(partitions))
    names = [path.removeprefix("documents/") for path in documents.paths("documents/*")]
    folder = ArtifactStore(url).key_folder("dedup", "b" * 64)
    maps = PartitionMap(folder, "dedup", DedupStage.output, "test-run")
    fates = [file_fates(url, [SURVIVOR] * len(partition)) for partition in partitions]
    return documents, names, fates, maps
