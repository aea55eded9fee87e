"""The contract that every stage fulfils.

- `Stage`: name, version, config, inputs, output; `sources`, `estimate` and `run`
- `Sources`: data outside the store, listed once
- `StageContext`: what a running stage receives besides its config and inputs
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
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact
from infra.store.filesystem import Folder
from infra.workers.capacity import Capacity
from infra.workers.partitions import PartitionMap


@dataclass(frozen=True)
class Sources:
    """Data outside the store that a stage reads, listed once: what is keyed is what is read and recorded."""

    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Public name -> state; part of the key."""
    listing: Any = None
    """The listing itself, which `run` receives in its context."""
    volume: Volume | None = None
    """Amount of data listed, for `estimate`; if omitted, that of the preceding stage counts."""


@dataclass
class StageContext:
    """Environment of a running stage."""

    run_id: str
    partitions: PartitionMap
    work: Folder
    """Progress that is not deterministic (checkpoints, passes); belongs to this run, outlives a killed process."""
    listener: ProgressListener
    records: Folder | None = None
    """Files for people to look at during and after the run; stored beside the run's record, never read by a stage."""
    shared: Folder | None = None
    """Intermediate results shared with other configs of this stage, named by everything they depend on."""
    listing: Any = None
    """`Sources.listing` of the decision to run."""
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    incomplete: list[str] = field(default_factory=list)
    """Reasons why the time of this try is not that of the whole stage, such as passes that were finished before."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Time a block as a phase of the manifest."""
        return self.stopwatch.phase(name)


class Stage(Protocol):
    """One step from text to benchmarked model; a plain object without state of its own."""

    name: str
    is_optional: bool = False
    """A run has an optional stage only if its config has the stage's section, which is null by default."""
    version: int
    """Raised whenever the same config and inputs would give other bytes."""
    Config: type[StageConfig]
    inputs: ClassVar[Mapping[str, ArtifactKind]]
    """Input name -> kind; wired to the nearest earlier stage of the run whose output has that kind."""
    output: ArtifactKind

    def sources(self, config: Any) -> dict[str, str]:
        """Fingerprints of data outside the store that the stage reads; part of the key."""
        return {}

    def list_sources(self, config: Any, store: str) -> Sources:
        """List the data outside the store, once per decision; `store` is the store's URL, which is no source."""
        return Sources(self.sources(config))

    def packages(self, config: Any) -> tuple[str, ...]:
        """Packages whose version decides the bytes; another version than that of an artifact means run.

        `unicodedata` stands for the version of Python's Unicode tables.
        """
        return ()

    def check(self, config: Any, store: str = "") -> None:
        """Check quickly what the stage needs besides its inputs; called before any stage of a run starts.

        Args:
            config: the stage's config, resolved.
            store: URL of the store.

        Raises:
            HeadraceError: for what a user has to mend before the stage can run.
        """
        return

    def estimate(self, config: Any, volume: Volume, capacity: Capacity) -> Estimate:
        """Time, memory of a node and output volume for an input of this volume; rates are in `infra/hardware.py`."""
        ...

    def run(self, config: Any, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext) -> None:
        """Run the stage: read `inputs`, write files, counts and metrics to `out`. The caller commits."""
        ...
