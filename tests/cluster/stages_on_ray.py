"""Stages whose partitions wait for the test; called in the driver of a cluster.

- `run_stage`: a stage, in this process or on the cluster
- `Gate`: partitions of one phase that say where they run and wait to be let through
"""

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from infra.progress import SilentListener
from infra.store.artifacts import Artifact, ArtifactStore
from infra.workers.partitions import (
    Engine,
    Partition,
    PartitionFunction,
    PartitionMap,
    PartitionResult,
    PartitionWriter,
)
from infra.workers.ray_partitions import TaskNeeds
from stages.registry import stage_named
from stages.stage import StageContext
from tests.stores import commit

NEEDS = TaskNeeds(memory_bytes=100_000_000)


@dataclass(frozen=True)
class Gate:
    """A folder with a file for each start of a partition, `PHASE NODE TIME`, and one that opens it."""

    folder: Path
    phase: str = ""

    def pass_through(self, phase: str, payload: Any) -> None:
        """Called by a partition."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / f"{phase} {socket.gethostname()} {time.monotonic_ns()}").touch()
        while phase == self.phase and not (self.folder / "open").exists():
            time.sleep(0.02)

    def open(self) -> None:
        """Let all partitions through."""
        (self.folder / "open").touch()

    def nodes(self, phase: str = "") -> list[str]:
        """Name of the node of each start so far, of one phase or of all."""
        starts = [path.name.split() for path in self.folder.glob("* * *")]
        return sorted(node for name, node, _ in starts if phase in ("", name))


@dataclass
class GatedMap(PartitionMap):
    """A map whose partitions pass a gate."""

    gate: Gate | None = None

    def map(self, phase: str, function: PartitionFunction, partitions: Sequence[Partition]) -> list[PartitionResult]:
        """As `PartitionMap.map`."""
        return super().map(phase, partial(_gated, self.gate, phase, function), partitions)


def _gated(gate: Gate | None, phase: str, function: PartitionFunction, payload: Any, out: PartitionWriter) -> None:
    if gate:
        gate.pass_through(phase, payload)
    function(payload, out)


def run_stage(
    name: str,
    url: str,
    documents: Artifact,
    config: Mapping[str, Any],
    engine: Engine = "inline",
    gate: Gate | None = None,
) -> str:
    """Run a stage of documents; returns the digest of its artifact's content."""
    stage, store = stage_named(name), ArtifactStore(url)
    out = store.writer(name, "b" * 64, "run", stage.output)
    maps = GatedMap(out.folder, name, stage.output, "run", engine, needs=NEEDS, gate=gate)
    context = StageContext("run", maps, out.folder.child("work"), SilentListener())
    stage.run(stage.Config.model_validate(config), {"documents": documents}, out, context)
    return commit(store, out, name, "b" * 64, stage.output).manifest.digest


def living_nodes() -> list[str]:
    """Names of the nodes that Ray counts as alive; connects to Ray."""
    import ray

    from infra.workers.ray_session import ensure_ray

    ensure_ray()
    return sorted(node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"])


def run_partitions(url: str, count: int, gate: Gate) -> list[int]:
    """Run partitions that write their number; returns what they wrote."""
    folder = ArtifactStore(url).key_folder("clean", "b" * 64)
    maps = GatedMap(folder, "clean", RAW_DOCUMENTS, "run", "ray", needs=NEEDS, gate=gate)
    results = maps.map("numbers", write_number, [Partition(f"{number:04d}", number) for number in range(count)])
    return [result.read_table("number.arrow").column("number")[0].as_py() for result in results]


def write_number(payload: int, out: PartitionWriter) -> None:
    """Write the payload."""
    out.write_table("number.arrow", pa.table({"number": [payload]}))
