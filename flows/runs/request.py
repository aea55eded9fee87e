"""Request of a run: a config, and for a rerun the run whose artifacts it starts from.

- `RunRequest`: the request of a run
- `rerun_request`, `following_request`: requests on the artifacts of an earlier run
"""

import hashlib
import os
from dataclasses import dataclass
from typing import Any

from data_schemas.config import StageConfig, canonical_json
from data_schemas.errors import ConfigError
from data_schemas.manifest import RunRecord
from flows.config.run_config import RunConfigBase, recorded_config
from flows.planning.changes import field_changes
from flows.planning.stage_order import stages_from, stages_until
from flows.store_location import check_shared
from infra.ray_jobs.client import RayJobs
from infra.store.access import check_access
from infra.workers.ray_session import check_cluster
from stages.registry import STAGES, stage_named, wiring
from stages.stage import Stage


@dataclass(frozen=True)
class RunRequest:
    """A config to run, and for a rerun the run that it starts from and the stage that must run."""

    config: RunConfigBase
    store_url: str
    base: RunRecord | None = None
    first: str | None = None
    """First stage to plan; those before it are taken from `base`, even if their sources have changed since."""
    forced: str | None = None
    """Stage that must run."""
    forced_onwards: bool = False
    """All stages after `forced` must run, too."""
    last_stage: str | None = None
    fresh: bool = False
    keep_versions: bool = False
    """Reuse artifacts that other versions of packages made."""
    flow_run: str | None = None
    """Id of the flow run that executes it; retried, it continues the run that it began."""

    def __post_init__(self) -> None:
        for name in (self.first, self.forced, self.last_stage):
            if name is not None:
                self.config.check_stage(name)

    @property
    def config_digest(self) -> str:
        """Identifies config and last stage; fields that change no bytes are not part of it."""
        values = {stage.name: self.config.stage_config(stage.name).key_fields() for stage in self.config.stages}
        request: dict[str, Any] = {"name": self.config.name, "config": values, "until": self.last_stage}
        if self.forced_onwards:
            request["forced_onwards"] = True
        return hashlib.sha256(canonical_json(request).encode()).hexdigest()

    def check_cluster_reaches_store(self) -> None:
        """Refuse a store on a disk of this machine if the nodes of a Ray cluster would have to use it.

        Raises:
            ConfigError: if they would.
        """
        execution = self.config.execution
        if execution.submit != "none":
            check_shared(self.store_url, execution.shared_filesystem, "a Ray cluster that jobs are submitted to")
        elif self._uses_ray and (address := os.environ.get("RAY_ADDRESS", "local")) != "local":
            cluster = f"the nodes of the Ray cluster at RAY_ADDRESS={address}"
            check_shared(self.store_url, execution.shared_filesystem, cluster)

    def check_usable(self) -> None:
        """Refuse a store or a cluster that cannot be used, before a flow engine starts.

        Raises:
            ConfigError: if nodes cannot reach the store.
            EnvironmentProblem: if the store, or the cluster, cannot be reached or refuses this user.
        """
        self.check_cluster_reaches_store()
        if self.config.execution.submit != "none":
            RayJobs(self.config.execution.address)
        elif self._uses_ray:
            check_cluster()
        check_access(self.store_url)

    @property
    def _uses_ray(self) -> bool:
        sections = [self.config.stage_config(stage.name) for stage in self.planned]
        return any(map(computes_on_workers, sections)) or self.config.execution.engine == "ray"

    @property
    def planned(self) -> list[Stage]:
        """The stages that are not taken from `base`."""
        return stages_from(self.config.stages, self.first, self.last_stage)

    @property
    def stages(self) -> list[Stage]:
        """All stages of the run, in order."""
        return stages_until(self.config.stages, self.last_stage)

    @property
    def forced_stages(self) -> list[str]:
        """Names of the stages that must run."""
        stages = stages_from(self.config.stages, self.forced, self.last_stage) if self.forced else []
        onwards = [stage.name for stage in stages]
        return onwards if self.forced_onwards else onwards[:1]


def computes_on_workers(section: StageConfig) -> bool:
    """Whether a stage with this config computes on workers of Ray Train."""
    return bool(sections_on_workers(section))


def sections_on_workers(section: StageConfig) -> list[Any]:
    """Configs with workers of Ray Train, of a stage and of its tasks."""
    items = (section, *getattr(section, "tasks", ()))
    return [item for item in items if getattr(item, "computes_on", None) == "workers"]


def rerun_request(
    store_url: str,
    base: RunRecord,
    config: RunConfigBase,
    stage: str,
    only: bool = False,
    fresh: bool = False,
    onwards: bool = False,
    keep_versions: bool = False,
    until: str | None = None,
) -> RunRequest:
    """A forced rerun of one stage of a run, on the artifacts that the run used.

    Args:
        store_url: store of the run.
        base: the run.
        config: its config, possibly with other settings of this stage and those after it.
        stage: the stage that must run.
        only: it is the last stage; by default the last stage of the run is, unless it comes before this one.
        fresh: start a new run even if an unfinished one of the same request could be continued.
        onwards: the stages after it must run, too.
        keep_versions: whether artifacts that other versions of packages made are reused.
        until: the last stage, instead of that of the run.

    Raises:
        ConfigError: if the run has no artifact of a preceding stage, if the config changes one, or if `only` or `until`
            contradict the rest.
    """
    if only and (onwards or until not in (None, stage)):
        raise ConfigError(f"only {stage} cannot be rerun together with the stages after it; leave out 'only' or them")
    if until is not None and stage_named(until) not in stages_from(STAGES, stage, None):
        raise ConfigError(
            f"a rerun of {stage} cannot end at {until}, which comes before it; name {stage} or a later stage"
        )
    _check_taken(base, config, stage)
    reached = base.last_stage is None or stage in {passed.name for passed in stages_until(STAGES, base.last_stage)}
    last_stage = until or (_last_stage(base, config) if reached and not only else stage)
    return RunRequest(config, store_url, base, stage, stage, onwards, last_stage, fresh, keep_versions)


def _last_stage(base: RunRecord, config: RunConfigBase) -> str | None:
    """Last stage of a run, or the one before it in the config if that has switched it off."""
    if base.last_stage is None:
        return None
    passed = {stage.name for stage in stages_until(STAGES, base.last_stage)}
    return [stage.name for stage in config.stages if stage.name in passed][-1]


def following_request(store_url: str, base: RunRecord, config: RunConfigBase, stage: str) -> RunRequest:
    """One stage, on the artifacts of a run's preceding stages.

    Raises:
        ConfigError: if the run has no artifact of a preceding stage, or the config changes one.
    """
    _check_taken(base, config, stage)
    return RunRequest(config, store_url, base, stage, last_stage=stage)


def _check_taken(base: RunRecord, config: RunConfigBase, first: str) -> None:
    config.check_stage(first)
    recorded = recorded_config(base)
    wires, recorded_wires = wiring(config.stages), wiring(recorded.stages)
    for stage in stages_until(config.stages, first)[:-1]:
        if stage.name not in base.stages:
            added = "" if stage in recorded.stages else f" --set {stage.name}=..."
            raise ConfigError(
                f"run {base.run_id} has no {stage.name} artifact, which {first} needs; make it with: "
                f"headrace rerun {stage.name} --run {base.run_id}{added}"
            )
        if wires[stage.name] != recorded_wires[stage.name]:
            reads, read = (", ".join(wired[stage.name].values()) for wired in (wires, recorded_wires))
            raise ConfigError(
                f"{stage.name} of run {base.run_id} read the output of {read}, in this config it reads that of "
                f"{reads}, and it comes before {first}; to change that: headrace rerun {stage.name} --run "
                f"{base.run_id} --set ..."
            )
        before = recorded.stage_config(stage.name).key_fields()
        for change in field_changes(stage.Config, before, config.stage_config(stage.name)):
            raise ConfigError(
                f"{stage.name}.{change} changes a stage before {first}, whose artifact is taken from run "
                f"{base.run_id}; to change it: headrace rerun {stage.name} --run {base.run_id} --set ..."
            )
