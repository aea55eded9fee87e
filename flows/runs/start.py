"""Artifacts and plan that a run begins with.

- `RunStart`: both, before the run exists
- `taken_artifacts`: artifacts of the run that a rerun starts from
- `checked_plan`: decisions for all stages; `listed_sources`, `ray_workers`: the parts of it that a run uses
"""

from dataclasses import dataclass

from data_schemas.errors import NotFoundError
from flows.planning.planner import PlannedStage, Planner
from flows.planning.stage_order import stages_read
from flows.runs.request import RunRequest, computes_on_workers, sections_on_workers
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.runs import RunStore
from infra.training_room import check_training_compiler, check_training_memory, check_training_room
from stages.stage import Sources


@dataclass(frozen=True)
class RunStart:
    """Artifacts and decisions with which a run begins."""

    taken: dict[str, Artifact]
    """Artifacts of the run that it starts from."""
    plan: list[PlannedStage]
    precision: dict[str, str]
    """Values that `auto` takes on this machine, as far as the plan needed them."""

    @classmethod
    def of(cls, request: RunRequest) -> "RunStart":
        """Plan a request.

        Raises:
            ConfigError: if the plan shows that a stage cannot work.
            NotFoundError: if an artifact of the run that it starts from is gone.
        """
        store = ArtifactStore(request.store_url)
        request.check_cluster_reaches_store()
        taken = taken_artifacts(store, request)
        runs = RunStore(request.store_url)
        planner = Planner(store, runs, request.config, None, request.base, request.keep_versions)
        return cls(taken, checked_plan(planner, request, taken), planner.precision.known)

    @property
    def reuses_all(self) -> bool:
        """Whether no stage has to run."""
        return all(row.action == "reuse" for row in self.plan)


def checked_plan(planner: Planner, request: RunRequest, taken: dict[str, Artifact]) -> list[PlannedStage]:
    """Plan everything, so that what cannot work is refused before anything starts."""
    plan = planner.plan(request.forced_stages, request.last_stage, request.first, taken)
    here = request.config.execution.submit == "none"
    for row in plan:
        if row.action == "run" and (workers := getattr(row.config, "workers", 0)) and computes_on_workers(row.config):
            fewest = getattr(row.config, "min_workers", None) or workers
            check_training_room(row.stage.name, fewest, getattr(row.config, "cpus_per_worker", 1.0))
            if here:
                check_training_memory(row.stage.name, row.estimate.peak_memory_bytes)
        if row.action == "run" and here and getattr(row.config, "compile", False):
            check_training_compiler(row.stage.name)
    return plan


def listed_sources(plan: list[PlannedStage]) -> dict[str, Sources]:
    """The sources that planning has listed."""
    return {row.stage.name: row.sources for row in plan if row.sources.listing is not None}


def ray_workers(plan: list[PlannedStage]) -> tuple[int, float] | None:
    """Number and CPUs of the workers of Ray Train for the first stage that is to run on some; None if none is."""
    for row in plan:
        if row.action == "run" and (sections := sections_on_workers(row.config)):
            return getattr(sections[0], "workers", 1), getattr(sections[0], "cpus_per_worker", 1.0)
    return None


def taken_artifacts(store: ArtifactStore, request: RunRequest) -> dict[str, Artifact]:
    """Artifacts of `request.base` that the planned stages read.

    Raises:
        NotFoundError: if one is gone from the store, and no other attempt has the same bytes.
    """
    artifacts: dict[str, Artifact] = {}
    if request.base is None or request.first is None:
        return artifacts
    for name in stages_read(request.config.stages, request.planned):
        ref = request.base.stages[name].artifact
        artifact = store.find_equal(ref)
        if artifact is None:
            raise NotFoundError(
                f"run {request.base.run_id} used {ref.label}, which {request.first} needs and which is gone from "
                f"{request.store_url}; make it again with: headrace rerun {name} --run {request.base.run_id}"
            )
        artifacts[name] = artifact
    return artifacts
