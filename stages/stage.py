"""The contract that every stage fulfils.

- `Stage`: name, version, config, inputs, output; `sources`, `estimate` and `run`
- `StageContext`: what a running stage is given besides its config and inputs
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from data_schemas.artifact_kinds import ArtifactKind
from data_schemas.config import StageConfig
from data_schemas.manifest import Estimate, Volume
from infra.measure import Stopwatch
from infra.progress import ProgressListener
from infra.store.artifacts import Artifact, ArtifactWriter
from infra.store.filesystem import Folder
from infra.workers.partitions import PartitionMap


@dataclass
class StageContext:
    """What a stage is given to work with."""

    run_id: str
    partitions: PartitionMap
    work: Folder
    """Progress that is not deterministic (checkpoints, passes); belongs to this run, outlives a killed process."""
    listener: ProgressListener
    records: Folder | None = None
    """For what a person may want to look at while and after the stage runs; beside the run's record, never read."""
    shared: Folder | None = None
    """For parts of this stage's work that other configs of it have in common, named by all that decides them."""
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Time a block as a phase of the manifest."""
        return self.stopwatch.phase(name)


class Stage(Protocol):
    """One step from text to benchmarked model; a plain object without state of its own."""

    name: str
    version: int
    """Raised when the same config and inputs would give other bytes."""
    Config: type[StageConfig]
    inputs: ClassVar[Mapping[str, ArtifactKind]]
    """Input name -> kind; wired to the nearest earlier stage whose output has that kind."""
    output: ArtifactKind

    def sources(self, config: Any) -> dict[str, str]:
        """Fingerprints of data outside the store that the stage reads; part of the key."""
        return {}

    def estimate(self, config: Any, volume: Volume) -> Estimate:
        """What the stage will need for this much input; see `infra/hardware.py` for the rates."""
        ...

    def run(self, config: Any, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext) -> None:
        """Do the work: read `inputs`, write files, counts and metrics to `out`. The caller commits."""
        ...
