"""One run: its record, its decisions and the execution of its stages, independent of the flow engine.

- `RunView`: callbacks for progress; `RunRequest`: what to run
- `RunSession`: begins or continues a run, executes its stages, closes the run
"""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol

from data_schemas.config import StageConfig, canonical_json
from data_schemas.errors import ConfigError
from data_schemas.manifest import Estimate, Manifest, RunRecord, StageOutcome, Volume, content_digest
from flows.planning import PlannedStage, Planner, artifact_refs, stages_until
from flows.run_config import RunConfigBase
from infra.hardware import workers_or_all
from infra.measure import PeakMemory, Stopwatch
from infra.progress import ProgressListener, SilentListener
from infra.store import provenance, runs
from infra.store.artifacts import Artifact, ArtifactStore, ArtifactWriter
from infra.store.runs import RunStore
from infra.workers.partitions import PartitionMap
from stages.registry import STAGES, stage_named, wiring
from stages.stage import Stage, StageContext


class RunView(Protocol):
    """Callbacks for the progress of a run; a terminal or a log implements them."""

    def logged(self, message: str) -> None:
        """A sentence about the run as a whole."""

    def stage_started(self, stage: str) -> ProgressListener:
        """A stage starts to run; returns the listener for its progress."""

    def stage_finished(self, stage: str, outcome: StageOutcome) -> None:
        """A stage has its artifact."""


class SilentView:
    """Ignores everything."""

    def logged(self, message: str) -> None:
        """Ignore."""

    def stage_started(self, stage: str) -> ProgressListener:
        """Return a listener that ignores everything."""
        return SilentListener()

    def stage_finished(self, stage: str, outcome: StageOutcome) -> None:
        """Ignore."""


@dataclass(frozen=True)
class RunRequest:
    """A config to run, and for a rerun the run that it starts from and the stage that must run."""

    config: RunConfigBase
    store_url: str
    base: RunRecord | None = None
    forced: str | None = None
    last_stage: str | None = None
    fresh: bool = False
    inputs_from: RunRecord | None = None
    """A run whose artifacts are used for all stages before the last one, even if their sources have changed since."""

    def __post_init__(self) -> None:
        for name in (self.forced, self.last_stage):
            if name is not None:
                stage_named(name)

    @property
    def config_digest(self) -> str:
        """Identifies config and last stage; fields that change no bytes are not part of it."""
        values = {stage.name: self.config.stage_config(stage.name).key_fields() for stage in STAGES}
        request = {"name": self.config.name, "config": values, "until": self.last_stage}
        return hashlib.sha256(canonical_json(request).encode()).hexdigest()


@dataclass
class RunSession:
    """A run that this process works on."""

    request: RunRequest
    record: RunRecord
    view: RunView = field(default_factory=SilentView)
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = ArtifactStore(self.request.store_url)
        self.run_store = RunStore(self.request.store_url)

    @classmethod
    def begin(cls, request: RunRequest, view: RunView | None = None) -> "RunSession":
        """Continue the newest unfinished run of the same request, or start one; the record is saved at once.

        Raises:
            ConfigError: if the plan shows that a stage cannot work; nothing has started then.
        """
        session = cls(request, _new_record(request), view or SilentView())
        if request.inputs_from is None:
            session.planner(None).plan(request.forced, request.last_stage)
        unfinished, notes = (None, []) if request.fresh else resumable(session.run_store, request)
        session.record = runs.claim(unfinished or session.record)
        session._save()
        for note in (*notes, f"run {session.run_id}, store {request.store_url}"):
            session.view.logged(note)
        return session

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.record.run_id

    @property
    def stages(self) -> list[Stage]:
        """The stages of this run, in order."""
        return stages_until(self.request.last_stage)

    def planner(self, record: RunRecord | None) -> Planner:
        """Plans with the artifacts that `record` has pinned so far."""
        return Planner(self.store, self.run_store, self.request.config, record, self.request.base)

    def decide(self, stage: Stage) -> PlannedStage:
        """Reuse or run, with every input known."""
        planner, inputs_from = self.planner(self.record), self.request.inputs_from
        if inputs_from is not None and stage.name != self.request.last_stage:
            return planner.reuse_from(inputs_from, stage)
        producers = wiring()[stage.name].values()
        inputs = {producer: self.artifacts[producer] for producer in producers}
        return planner.decide(stage, inputs, self._volume_before(stage), self.request.forced)

    def execute(self, stage: Stage) -> StageOutcome:
        """Reuse or make the artifact of one stage and pin it in the record."""
        decision = self.decide(stage)
        begun = datetime.now(UTC)
        if decision.action == "reuse":
            assert decision.artifact is not None
            artifact = decision.artifact
            artifact.check_sizes()
        else:
            artifact = self._run(stage, decision)
        seconds = (datetime.now(UTC) - begun).total_seconds()
        outcome = StageOutcome(action=decision.action, why=decision.why, artifact=artifact.ref, seconds=seconds)
        self.artifacts[stage.name] = artifact
        # The record of a continued run keeps its outcomes from before it was stopped.
        stages = self.record.stages if decision.done_before else {**self.record.stages, stage.name: outcome}
        self.record = self.record.model_copy(update={"stages": stages})
        self._save()
        self.view.stage_finished(stage.name, outcome)
        return outcome

    def close(self, status: Literal["finished", "failed", "interrupted"], message: str | None = None) -> None:
        """Record how the run ended."""
        self.record = runs.close(self.record, status, message)
        self._save()

    def _run(self, stage: Stage, decision: PlannedStage) -> Artifact:
        assert decision.key is not None
        inputs = {name: self.artifacts[producer] for name, producer in wiring()[stage.name].items()}
        for artifact in inputs.values():
            artifact.check_sizes()
        for name, artifact in inputs.items():
            artifact.check_contract(stage.inputs[name], stage.name)
        out = self.store.writer(stage.name, decision.key, self.run_id, stage.output)
        context = self._context(stage, out, fresh=stage.name == self.request.forced)
        config = self.request.config.stage_config(stage.name)
        started = datetime.now(UTC)
        with PeakMemory() as memory:
            stage.run(config, inputs, out, context)
        manifest = _manifest(stage, decision, inputs, out, started, context.stopwatch, memory.peak_bytes, config)
        out.commit(manifest)
        context.work.remove()
        return self.store.open(manifest.ref)

    def _context(self, stage: Stage, out: ArtifactWriter, fresh: bool) -> StageContext:
        execution = self.request.config.execution
        listener = self.view.stage_started(stage.name)
        workers = workers_or_all(execution.workers)
        partitions = PartitionMap(
            out.folder, stage.name, stage.output, self.run_id, execution.engine, workers, fresh, listener
        )
        records = self.run_store.folder.child(self.run_id)
        work = out.folder.child(f"{self.run_id}/work")
        shared = None if fresh else self.store.root.child(f"shared/{stage.name}")
        return StageContext(self.run_id, partitions, work, listener, records, shared)

    def _volume_before(self, stage: Stage) -> Volume:
        preceding = stages_until(stage.name)[:-1]
        return self.artifacts[preceding[-1].name].manifest.volume if preceding else Volume()

    def _save(self) -> None:
        self.run_store.save(self.record)


def _new_record(request: RunRequest) -> RunRecord:
    return RunRecord(
        run_id=runs.new_run_id(),
        config_name=request.config.name,
        config=request.config.model_dump(mode="json"),
        config_digest=request.config_digest,
        status="running",
        base_run=request.base.run_id if request.base else None,
        forced=request.forced,
        last_stage=request.last_stage,
        host="",
        pid=0,
        process_started=0,
        started=datetime.now(UTC),
    )


def resumable(store: RunStore, request: RunRequest) -> tuple[RunRecord | None, list[str]]:
    """The newest run of the same request if it is unfinished and no process works on it, and notes for the user."""
    base_id = request.base.run_id if request.base else None
    for record in store.all():
        if record.config_digest != request.config_digest or record.forced != request.forced:
            continue
        if base_id not in (record.base_run, record.run_id):
            continue
        if record.status == "finished":
            return None, []
        if runs.is_alive(record):
            return None, [
                f"run {record.run_id} of the same config is still alive (pid {record.pid}); this is another run"
            ]
        return record, [f"continues run {record.run_id}"]
    return None, []


def rerun_request(
    store_url: str, base: RunRecord, config: RunConfigBase, stage: str, only: bool, fresh: bool
) -> RunRequest:
    """A forced rerun of one stage of a run.

    Raises:
        ConfigError: if the run has no artifact of a preceding stage.
    """
    _check_reached(base, stage)
    return RunRequest(config, store_url, base, stage, stage if only else base.last_stage, fresh)


def following_request(store_url: str, base: RunRecord, config: RunConfigBase, stage: str) -> RunRequest:
    """One stage, on the artifacts of a run's preceding stages.

    Raises:
        ConfigError: if the run has no artifact of a preceding stage.
    """
    _check_reached(base, stage)
    return RunRequest(config, store_url, last_stage=stage, inputs_from=base)


def _check_reached(base: RunRecord, stage: str) -> None:
    missing = [required.name for required in stages_until(stage)[:-1] if required.name not in base.stages]
    if missing:
        raise ConfigError(
            f"run {base.run_id} has no {missing[0]} artifact, which {stage} needs; finish it first with: headrace run"
        )


def _manifest(
    stage: Stage,
    decision: PlannedStage,
    inputs: dict[str, Artifact],
    out: ArtifactWriter,
    started: datetime,
    stopwatch: Stopwatch,
    peak_memory_bytes: int,
    config: StageConfig,
) -> Manifest:
    assert decision.key is not None
    files = sorted(out.files.values(), key=lambda entry: entry.path)
    return Manifest(
        stage=stage.name,
        stage_version=stage.version,
        kind=stage.output.name,
        kind_version=stage.output.version,
        key=decision.key,
        attempt=out.attempt,
        digest=content_digest(files),
        config=config.model_dump(mode="json"),
        inputs=artifact_refs(inputs),
        sources=stage.sources(config),
        files=files,
        counts=out.counts,
        metrics=out.metrics,
        volume=out.volume,
        estimate=_estimate(decision.estimate),
        code=provenance.code_version(),
        packages=provenance.package_versions(),
        device=provenance.device(),
        started=started,
        ended=datetime.now(UTC),
        phases=stopwatch.phases,
        peak_memory_bytes=peak_memory_bytes,
    )


def _estimate(estimate: Estimate) -> Estimate | None:
    return estimate if estimate.seconds else None
