"""One run: its record, its decisions and the execution of its stages, independent of the flow engine.

- `RunSession`: begins or continues a run, executes its stages, closes the run
- `NotReused`: raised instead of running a stage in a session that may only reuse
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from data_schemas.errors import FencedError
from data_schemas.manifest import RunRecord, StageOutcome, Volume
from data_schemas.public_urls import public_text, public_url
from flows.planning.planner import PlannedStage, Planner
from flows.planning.stage_order import stages_until, volume_before
from flows.planning.store_rates import StoreRates
from flows.runs.earlier import of_flow_run, take_over, unfinished_run
from flows.runs.request import RunRequest, computes_on_workers
from flows.runs.stage_costs import RegisteredPlan, register_run
from flows.runs.stage_manifest import stage_manifest
from flows.runs.start import RunStart, checked_plan, listed_sources, ray_workers, taken_artifacts
from flows.runs.view import RunView, SilentView
from infra.hardware import data_process_bytes
from infra.measure import PeakMemory
from infra.ray_jobs.in_progress import check_no_job_has
from infra.store import runs
from infra.store.access import check_access
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.claims import Claim, Heartbeat
from infra.store.cost_records import CostRecords
from infra.store.filesystem import Folder
from infra.store.garbage.contents import artifact_id
from infra.store.garbage.gate import GarbageGate
from infra.store.runs import RunStore
from infra.workers.partitions import PartitionMap
from infra.workers.ray_partitions import TaskNeeds
from infra.workers.ray_session import prestart_ray
from stages.registry import wiring
from stages.stage import Sources, Stage, StageContext


class NotReused(Exception):
    """A stage has to run in a session that may only reuse artifacts."""


@dataclass
class RunSession:
    """A run that this process works on."""

    request: RunRequest
    record: RunRecord
    claim: Claim
    view: RunView
    artifacts: dict[str, Artifact]
    listed: dict[str, Sources] = field(default_factory=dict)
    """Sources that planning has listed before the run began."""
    ray_workers: tuple[int, float] | None = None
    """By the plan, number and CPUs of the workers of Ray Train that will train first; None if none will."""
    may_run: bool = True
    """False: `execute` raises `NotReused` for a stage that cannot be reused."""

    def __post_init__(self) -> None:
        self.store = ArtifactStore(self.request.store_url)
        self.run_store = RunStore(self.request.store_url)
        self.gate = GarbageGate(self.request.store_url)
        self.rates = StoreRates(self.request.store_url)
        self.costs = CostRecords(self.request.store_url)
        self._own(self.claim)

    def _own(self, claim: Claim) -> None:
        """Beat under this claim from now on."""
        self.claim = claim
        heartbeat = Heartbeat(claim)
        heartbeat.start()
        self._stop_heartbeat = weakref.finalize(self, heartbeat.stop)

    @classmethod
    def begin(cls, request: RunRequest, view: RunView | None = None, start: RunStart | None = None) -> "RunSession":
        """Continue the newest unfinished run of the same request, or start one; the record is saved at once.

        A run that another process owns is not continued; one whose owner is out of sight, on another host or in another
        container, is watched for three heartbeats first.

        Args:
            request: the request.
            view: callbacks for progress.
            start: what the run begins with, if it was planned just now.

        Raises:
            ConfigError: if the plan shows that a stage cannot work; nothing has started then.
            EnvironmentProblem: if the store cannot be listed, written to and read, or a job on a cluster works on the
                run that would be continued.
        """
        if not Folder(request.store_url).is_local:
            check_access(request.store_url)
        view, store = view or SilentView(), RunStore(request.store_url)
        start = start or RunStart.of(request)
        unfinished = of_flow_run(store, request) or (None if request.fresh else unfinished_run(store, request))
        check_no_job_has(store, unfinished, view.logged)
        owned = take_over(store, request, unfinished, start.precision, view.logged)
        plan = start.plan
        session = cls(request, *owned, view, start.taken, listed_sources(plan), ray_workers(plan))
        session._announce()
        register_run(session.costs, session.run_id, plan)
        return session

    def _announce(self) -> None:
        """Report the run to its flow run, to the user and to `headrace gc`; it fails if that is not possible."""
        if self.request.flow_run:
            self.run_store.note_flow_run(self.request.flow_run, self.run_id)
        self.view.logged(f"run {self.run_id}, store {public_url(self.request.store_url)}")
        try:
            self._wait_for_garbage()
        except BaseException as error:
            self.close("failed", str(error))
            raise

    @classmethod
    def accept(cls, request: RunRequest, run_id: str, number: int, stage: str | None, view: RunView) -> "RunSession":
        """Continue a run that its owner has left to this process, under a fencing number.

        Args:
            request: the request of the run.
            run_id: the run.
            number: the fencing number.
            stage: the only stage that this process executes, after all before it; None for all stages.
            view: callbacks for progress.

        Raises:
            FencedError: if another process owns the run.
            ConfigError: if the plan shows that a stage cannot work.
        """
        session = cls(request, *RunStore(request.store_url).accept(run_id, number), view, {})
        try:
            session._prepare(stage)
        except BaseException as error:
            if stage is None:
                session.close("failed", str(error))
            raise
        return session

    def _prepare(self, stage: str | None) -> None:
        """Plan, if nobody did so before, and open what the stages before `stage` made."""
        taken = taken_artifacts(self.store, self.request)
        if stage is None or stage == self.request.planned[0].name:
            planner = self.planner(self.record if self.record.precision else None)
            plan = checked_plan(planner, self.request, taken)
            register_run(self.costs, self.run_id, plan)
            self.listed = listed_sources(plan)
            self.record = self.record.model_copy(update={"precision": planner.precision.known})
            self._save()
        self._wait_for_garbage()
        for before in stages_until(self.request.stages, stage)[:-1] if stage else []:
            outcome = self.record.stages.get(before.name)
            artifact = self.store.find_equal(outcome.artifact) if outcome else None
            if artifact is not None:  # of a rerun's base, one that no stage reads may be gone
                self.artifacts[before.name] = artifact

    def _wait_for_garbage(self) -> None:
        """From now on, headrace gc sees what this run needs."""
        self.gate.wait(self._is_of_this_run, self.view.logged)
        self.artifacts = taken_artifacts(self.store, self.request)

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.record.run_id

    @property
    def stages(self) -> list[Stage]:
        """The stages of this run, in order."""
        return self.request.stages

    def planner(self, record: RunRecord | None) -> Planner:
        """Plans with the artifacts that `record` has pinned so far."""
        request = self.request
        return Planner(
            self.store, self.run_store, request.config, record, request.base, request.keep_versions, self.rates
        )

    def decide(self, stage: Stage) -> PlannedStage:
        """Reuse or run, with every input known."""
        volume = self._volume_before(stage)
        listed = self.listed.pop(stage.name, None)  # a retry lists them again
        is_forced = stage.name in self.request.forced_stages
        return self.planner(self.record).decide(stage, self.artifacts, volume, is_forced, listed)

    def execute(self, stage: Stage) -> StageOutcome:
        """Take, reuse or make the artifact of one stage and pin it in the record."""
        if stage not in self.request.planned:
            return self._take(stage)
        begun = datetime.now(UTC)
        decision = self.decide(stage)
        while decision.action == "reuse" and not self._secure(decision):
            decision = self.decide(stage)
        if decision.action == "reuse":
            assert decision.artifact is not None
            artifact = decision.artifact
            artifact.check_sizes()
        elif not self.may_run:
            raise NotReused(f"{stage.name} has to run: {decision.why}")
        else:
            artifact = self._run(stage, decision)
        seconds = (datetime.now(UTC) - begun).total_seconds()
        outcome = StageOutcome(action=decision.action, why=decision.why, artifact=artifact.ref, seconds=seconds)
        self.artifacts[stage.name] = artifact
        # The record of a continued run keeps its outcomes from before it was stopped.
        return self._pin(stage, outcome, self.record.stages.get(stage.name) if decision.done_before else None)

    def _secure(self, decision: PlannedStage) -> bool:
        """Pin an artifact, and make sure that `headrace gc` did not remove it before it could see that."""
        assert decision.artifact is not None
        ref, name = decision.artifact.ref, decision.stage.name
        if not decision.done_before:
            outcome = StageOutcome(action="reuse", why=decision.why, artifact=ref, seconds=0)
            self.record = self.record.model_copy(update={"stages": {**self.record.stages, name: outcome}})
            self._save()
        self.gate.wait(lambda removed: removed == artifact_id(ref), self.view.logged)
        if self.store.has(ref):
            return True
        stages = {stage: outcome for stage, outcome in self.record.stages.items() if stage != name}
        self.record = self.record.model_copy(update={"stages": stages})
        return False

    def _is_of_this_run(self, removed: str) -> bool:
        """Whether what a `headrace gc` removes is this run's progress, or an artifact that it or its base used."""
        records = (self.record, self.request.base) if self.request.base else (self.record,)
        used = {artifact_id(outcome.artifact) for record in records for outcome in record.stages.values()}
        return removed in used or removed.removesuffix("/work").endswith(f"/{self.run_id}")

    def _take(self, stage: Stage) -> StageOutcome:
        """The outcome of a stage before the first that is planned; an artifact that no stage reads may be gone."""
        base, artifact = self.request.base, self.artifacts.get(stage.name)
        assert base is not None
        ref = artifact.ref if artifact else base.stages[stage.name].artifact
        return self._pin(
            stage, StageOutcome(action="reuse", why=f"taken from run {base.run_id}", artifact=ref, seconds=0)
        )

    def _pin(self, stage: Stage, outcome: StageOutcome, recorded: StageOutcome | None = None) -> StageOutcome:
        stages = {**self.record.stages, stage.name: recorded or outcome}
        self.record = self.record.model_copy(update={"stages": stages})
        self._save()
        self.view.stage_finished(stage.name, outcome)
        return outcome

    def close(self, status: Literal["finished", "failed", "interrupted"], message: str | None = None) -> None:
        """Record how the run ended, and give up the claim.

        Raises:
            FencedError: if it finished, but another process had taken it over.
        """
        self.record = runs.close(self.record, status, message and public_text(message))
        try:
            self._save()
        except FencedError:
            if status == "finished":
                raise  # in all other cases the error that ended it is reported
        finally:
            self._stop_heartbeat()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Close the run as finished, failed or interrupted, by how the block ends."""
        try:
            yield
            self.close("finished")
        except Exception as error:
            self.close("failed", str(error))
            raise
        except BaseException:
            self.close("interrupted")
            raise

    def _run(self, stage: Stage, decision: PlannedStage) -> Artifact:
        assert decision.key is not None
        # Processes that a data stage starts meanwhile would take over the memory settings of Ray's workers.
        in_processes = self.request.config.execution.engine == "processes"
        if self.ray_workers and (computes_on_workers(decision.config) or not in_processes):
            prestart_ray(*self.ray_workers)
        wires = wiring(self.request.config.stages)[stage.name]
        inputs = {name: self.artifacts[producer] for name, producer in wires.items()}
        for artifact in inputs.values():
            artifact.check_sizes()
        for name, artifact in inputs.items():
            artifact.check_contract(stage.inputs[name], stage.name)
        folder = f"{stage.name}/{decision.key}"
        self.claim.hold(stage.name, decision.key)
        used = {f"{folder}/parts", f"{folder}/{self.run_id}", f"{folder}/{self.run_id}/work", f"shared/{stage.name}"}
        self.gate.wait(lambda removed: removed in used, self.view.logged)
        out = self.store.writer(stage.name, decision.key, self.run_id, stage.output, self.claim)
        volume = decision.sources.volume or self._volume_before(stage)
        context = self._context(stage, out, volume, fresh=stage.name in self.request.forced_stages)
        context.listing = decision.sources.listing
        self.claim.check()
        plan = RegisteredPlan.register(self.costs, self.record, decision, self.request.config.execution, context)
        started = datetime.now(UTC)
        with PeakMemory() as memory:
            stage.run(decision.config, inputs, out, context)
        manifest = stage_manifest(stage, decision, inputs, out, started, context.stopwatch, memory.peak_bytes)
        manifest = plan.measured(manifest.model_copy(update={"sequence": self.record.sequence}), context)
        out.commit(manifest)
        plan.complete(manifest)
        context.work.remove()
        return self.store.open(manifest.ref)

    def _volume_before(self, stage: Stage) -> Volume:
        volumes = {name: artifact.manifest.volume for name, artifact in self.artifacts.items()}
        return volume_before(self.request.config.stages, stage, volumes)

    def _context(self, stage: Stage, out: ArtifactWriter, volume: Volume, fresh: bool) -> StageContext:
        execution = self.request.config.execution
        listener = self.view.stage_started(stage.name)
        memory = execution.memory_per_partition
        memory = data_process_bytes(volume.text_bytes) if memory is None else memory
        needs = TaskNeeds(execution.cpus_per_partition, memory, execution.partition_retries)
        partitions = PartitionMap(
            out.folder,
            stage.name,
            stage.output,
            self.run_id,
            execution.engine,
            execution.workers,
            fresh,
            listener,
            needs,
        )
        records = self.run_store.folder.child(self.run_id)
        work = out.folder.child(f"{self.run_id}/work")
        shared = None if fresh else self.store.root.child(f"shared/{stage.name}")
        return StageContext(self.run_id, partitions, work, listener, records, shared)

    def _save(self) -> None:
        self.claim.check()
        self.run_store.save(self.record)
