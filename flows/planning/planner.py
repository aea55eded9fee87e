"""Reuse or run, and why: the decision for each stage, the same for `plan` and for the run itself.

- `PlannedStage`: the decision for one stage, with its estimate
- `Planner`: decides stage by stage from the store, the config and the run it starts from
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from data_schemas.artifact_kinds import RESULTS
from data_schemas.config import StageConfig
from data_schemas.errors import NotFoundError, UnreadableRecordError
from data_schemas.manifest import ArtifactRef, Estimate, Manifest, RunRecord, Volume
from flows.config.run_config import RunConfigBase
from flows.planning.changes import field_changes, package_changes
from flows.planning.stage_order import stages_from, volume_before
from flows.planning.store_rates import StoreRates
from infra.hardware import RUNTIME_BYTES
from infra.precision import AutoPrecision
from infra.store import provenance
from infra.store.artifact_key import artifact_key, differ_only_in_packages
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.runs import RunStore
from infra.workers.capacity import Capacity, capacity_of
from stages.registry import wiring
from stages.stage import Sources, Stage

if TYPE_CHECKING:
    from flows.scaling.fit import Forecast


@dataclass(frozen=True)
class PlannedStage:
    """Decision for one stage."""

    stage: Stage
    config: StageConfig
    """With the values that `auto` takes."""
    action: Literal["reuse", "run"]
    why: str
    key: str | None
    """Cache key; None while the inputs are unknown."""
    artifact: Artifact | None
    """The artifact to reuse."""
    estimate: Estimate
    """Cost of running it; for a reused stage the output volume at no cost."""
    done_before: bool = False
    """This run made or reused the artifact before it was interrupted."""
    sources: Sources = field(default_factory=Sources)
    """Data outside the store; empty while the inputs are unknown."""

    def as_json(self) -> dict[str, Any]:
        """The row that `--json` prints."""
        return {
            "stage": self.stage.name,
            "action": self.action,
            "why": self.why,
            "artifact": self.artifact.ref.label if self.artifact else None,
            "estimate": self.estimate.model_dump(exclude={"output"}) if self.action == "run" else None,
        }


class Planner:
    """Decides for each stage of one run whether an existing artifact can be used."""

    def __init__(
        self,
        store: ArtifactStore,
        runs: RunStore,
        config: RunConfigBase,
        record: RunRecord | None,
        base: RunRecord | None,
        keep_versions: bool = False,
        rates: StoreRates | None = None,
    ) -> None:
        """Plan a run.

        Args:
            store: the artifacts.
            runs: the run records, which tell what changed.
            config: the config of the run; `auto` becomes what it was when the run began, or what it is here.
            record: the run itself if it exists already; the artifacts that it pinned stay pinned.
            base: the run that it reruns; its artifacts are preferred over other attempts.
            keep_versions: whether artifacts that other versions of packages made are reused.
            rates: rates of the estimates; by default those of the store, read when they are needed.
        """
        self.store = store
        self._rates = rates or StoreRates(store.root.url)
        self.precision = AutoPrecision(record.precision if record else {})
        self._config = config
        self._resolved: dict[str, StageConfig] = {}
        self.record = record
        self.base = base
        self.keep_versions = keep_versions
        self._read_runs = [*filter(None, (record, base))]
        self._unread_runs = _newest_first(runs, config.name) if base is None else iter(())
        self._wires = wiring(config.stages)

    @cached_property
    def _capacity(self) -> Capacity:
        execution = self._config.execution
        return capacity_of(execution.engine, execution.workers, execution.cpus_per_partition)

    @cached_property
    def forecast(self) -> "Forecast | None":
        """Bits per byte of the pretrained network by the scaling law of its family; None if the store has none."""
        if not self.store.root.names("scaling"):
            return None
        from flows.scaling.forecast import stored_forecast

        return stored_forecast(self.store.root.url, self._config)

    def plan(
        self,
        forced: Collection[str] = (),
        last_stage: str | None = None,
        first: str | None = None,
        inputs: Mapping[str, Artifact] | None = None,
    ) -> list[PlannedStage]:
        """Decisions for the stages from `first` to `last_stage`, by default all, before anything runs.

        Args:
            forced: names of stages that must run even if nothing changed.
            last_stage: name of the last stage.
            first: name of the first stage.
            inputs: artifacts of stages before the first.
        """
        planned: list[PlannedStage] = []
        artifacts: dict[str, Artifact | None] = dict(inputs or {})
        volumes = {name: artifact.manifest.volume for name, artifact in (inputs or {}).items()}
        for stage in stages_from(self._config.stages, first, last_stage):
            volume = volume_before(self._config.stages, stage, volumes)
            decision = self.decide(stage, artifacts, volume, stage.name in forced)
            planned.append(decision)
            artifacts[stage.name] = decision.artifact
            volumes[stage.name] = decision.estimate.output
        return planned

    def decide(
        self,
        stage: Stage,
        artifacts: Mapping[str, Artifact | None],
        volume: Volume,
        forced: bool = False,
        listed: Sources | None = None,
    ) -> PlannedStage:
        """Decision for one stage.

        Args:
            stage: the stage.
            artifacts: artifacts of preceding stages; None for a stage that has not run yet.
            volume: input volume expected for the stage.
            forced: it must run even if nothing changed.
            listed: the stage's sources, if they are listed already.
        """
        config = self._stage_config(stage)
        upstream = {name: artifacts[producer] for name, producer in self._wires[stage.name].items()}
        unknown = sorted({self._wires[stage.name][name] for name, artifact in upstream.items() if artifact is None})
        if unknown:
            reasons = [*(self._changes(stage, config, {}, {}) or []), f"depends on {', '.join(unknown)}"]
            return self._run(stage, config, volume, "; ".join(reasons), None)

        digests = {name: artifact.ref.digest for name, artifact in upstream.items() if artifact is not None}
        listed = listed or stage.list_sources(config, self.store.root.url)
        decision = self._decide(stage, config, digests, listed, volume, forced)
        return replace(decision, sources=listed)

    def _decide(
        self,
        stage: Stage,
        config: StageConfig,
        digests: Mapping[str, str],
        listed: Sources,
        volume: Volume,
        forced: bool,
    ) -> PlannedStage:
        sources, volume = listed.fingerprints, listed.volume or volume
        packages = provenance.declared_versions(stage.packages(config))
        key = artifact_key(stage.name, stage.version, config.key_fields(), digests, sources, packages)
        pinned = self._pinned(self.record, stage, key) or self._committed_by_this_run(stage, key)
        if pinned is not None:
            return replace(self._reuse(stage, key, pinned, "already done in this run"), done_before=True)
        if forced:
            return self._run(stage, config, volume, "forced by rerun", key)
        match = self._pinned(self.base, stage, key) or self._match(stage, key)
        if match is not None:
            return self._reuse(stage, key, match, f"same config and inputs as in {match.ref.attempt}")
        changes = self._changes(stage, config, digests, sources)
        unchanged = "never run in this store" if changes is None else "its artifact is gone from the store"
        return self._run(stage, config, volume, "; ".join(changes or [unchanged]), key)

    def _stage_config(self, stage: Stage) -> StageConfig:
        """Config of a stage with the values that `auto` takes; only the devices of planned stages are asked."""
        if stage.name not in self._resolved:
            self._resolved[stage.name] = self._config.stage_config(stage.name).resolved(self.precision)
        return self._resolved[stage.name]

    def _reuse(self, stage: Stage, key: str, artifact: Artifact, why: str) -> PlannedStage:
        free = Estimate(seconds=0, peak_memory_bytes=0, output=artifact.manifest.volume)
        return PlannedStage(stage, self._stage_config(stage), "reuse", why, key, artifact, free)

    def _run(self, stage: Stage, config: StageConfig, volume: Volume, why: str, key: str | None) -> PlannedStage:
        stage.check(config, self.store.root.url)
        estimate = self._rates.applied(stage.estimate(config, volume, self._capacity))
        more: dict[str, Any] = {"peak_memory_bytes": estimate.peak_memory_bytes + RUNTIME_BYTES}
        if stage.output == RESULTS:
            more["bits_per_byte"] = self.forecast.value if self.forecast else None
        with_runtime = estimate.model_copy(update=more)
        return PlannedStage(stage, config, "run", why, key, None, with_runtime)

    def _pinned(self, record: RunRecord | None, stage: Stage, key: str) -> Artifact | None:
        outcome = record.stages.get(stage.name) if record else None
        if outcome is None or not differ_only_in_packages(outcome.artifact.key, key):
            return None
        try:
            artifact = self.store.open(outcome.artifact)
        except NotFoundError:
            return None
        return artifact if self._is_usable(artifact, stage) else None

    def _committed_by_this_run(self, stage: Stage, key: str) -> Artifact | None:
        """The artifact that this run made before it was stopped, or failed, between the manifest and its record."""
        if self.record is None:
            return None
        try:
            return self.store.open(ArtifactRef(stage=stage.name, key=key, attempt=self.record.run_id, digest=""))
        except (NotFoundError, UnreadableRecordError):
            return None

    def _match(self, stage: Stage, key: str) -> Artifact | None:
        """The newest artifact of this key, else of another whose packages do not matter."""
        exact = self.store.committed(stage.name, key)
        usable = (row for row in self.store.of_any_packages(stage.name, key) if self._is_usable(row, stage))
        return exact[0] if exact else next(usable, None)

    def _is_usable(self, artifact: Artifact, stage: Stage) -> bool:
        config = self._stage_config(stage)
        return self.keep_versions or not package_changes(artifact.manifest, stage.packages(config))

    def _changes(
        self, stage: Stage, config: StageConfig, digests: Mapping[str, str], sources: Mapping[str, str]
    ) -> list[str] | None:
        """Differences from the newest known artifact of the stage; None if there is none."""
        before = self._last_manifest(stage)
        if before is None:
            return None
        changes = []
        if before.stage_version != stage.version:
            changes.append(f"stage version {before.stage_version} -> {stage.version}")
        changes += package_changes(before, stage.packages(config))
        changes += field_changes(stage.Config, before.config, config)
        changes += [f"input {name} changed" for name, digest in digests.items() if before.inputs[name].digest != digest]
        changes += [f"{name} changed" for name, value in sources.items() if before.sources.get(name) != value]
        return changes

    def _known_runs(self) -> Iterator[RunRecord]:
        yield from self._read_runs
        for record in self._unread_runs:
            self._read_runs.append(record)
            yield record

    def _last_manifest(self, stage: Stage) -> Manifest | None:
        for record in self._known_runs():
            outcome = record.stages.get(stage.name)
            if outcome is not None:
                try:
                    return self.store.open(outcome.artifact).manifest
                except NotFoundError:
                    continue
        return None


def _newest_first(runs: RunStore, config_name: str) -> Iterator[RunRecord]:
    """Runs against which changes are reported: those of the same config name, then the others."""
    yield from runs.newest_first(sorted(runs.index()[0], key=lambda row: row.config_name != config_name))
