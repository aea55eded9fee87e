"""A run's config: one section per stage, read from YAML, changed by `--set`, validated before anything starts.

- `RunConfig`: pydantic, one field per registered stage, so that a deployment's form shows every setting
- `load_run_config`: YAML file and overrides -> `RunConfig`, with errors that name file, field and accepted values
- `recorded_config`: the same from the record of a run
"""

import copy
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, create_model

from data_schemas.config import RENAMED, FrozenConfig, Location, StageConfig, with_current_names
from data_schemas.errors import ConfigError
from data_schemas.manifest import RunRecord
from data_schemas.public_urls import PUBLIC
from data_schemas.yaml_text import load_yaml
from flows.config.files import Layer, merged, read_layers, source_of
from stages.registry import STAGES, stage_named, stages_of
from stages.stage import Stage


class ExecutionConfig(FrozenConfig):
    """Where and how the run is executed; changes no bytes and is part of no key."""

    engine: Literal["inline", "processes", "ray"] = Field(
        "ray", description="partitions run in this process, in local processes, or as Ray tasks"
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port of GET /metrics for Prometheus while the run lasts; 0: a free one"
    )
    metrics_address: str = Field("127.0.0.1", description="address that the metrics are served on; 0.0.0.0: all")
    submit: Literal["none", "stage", "run"] = Field(
        "none",
        description="driver of the stages: in this process, or as Ray jobs on a cluster, one per stage or one for the "
        "run",
    )
    address: Location | None = Field(
        None,
        description="cluster that jobs are submitted to: URL of its dashboard, such as http://head:8265, or host:port "
        "of its head; RAY_ADDRESS by default",
    )
    working_dir: str | None = Field(
        None,
        description="git checkout whose tracked files are the code of the jobs; by default the code that is installed "
        "on the cluster's nodes",
    )
    python: str = Field("python", min_length=1, description="command that starts Python on the cluster's nodes")
    driver_cpus: float = Field(
        0.0, ge=0, description="processors reserved for the driver of a job; with 0 and no GPU it runs on the head"
    )
    driver_gpus: float = Field(
        0.0, ge=0, description="GPUs reserved for the driver of a job, for stages that compute in it"
    )
    follow_seconds: float = Field(2.0, gt=0, description="seconds between two looks at a job's state and log")
    shared_filesystem: bool = Field(
        False, description="the store's local path is on a file system that all nodes of the cluster mount"
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="partitions run at once; by default one per core, with engine ray as many as the cluster has room "
        "for, also as nodes join and leave",
    )
    cpus_per_partition: float = Field(1.0, gt=0, description="CPUs that Ray reserves for each partition")
    memory_per_partition: int | None = Field(
        None, ge=0, description="bytes that Ray reserves for each partition; by default an estimate; 0: none"
    )
    partition_retries: int = Field(
        3, ge=0, description="times that Ray runs a partition again whose process or node was lost"
    )


class RunConfigBase(FrozenConfig):
    """Fields that belong to no stage; `RunConfig` adds a field per stage."""

    name: str = Field("unnamed", description="name of the config in listings and reports")
    execution: ExecutionConfig = Field(
        default_factory=lambda: ExecutionConfig(), description="processes that partitions run in"
    )

    def stage_config(self, stage: str) -> StageConfig:
        """Section of one stage."""
        section = getattr(self, stage)
        assert isinstance(section, StageConfig)
        return section

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of a run of this config, in order."""
        return stages_of(dict(self))

    def check_stage(self, name: str) -> None:
        """Check that a run of this config has the stage.

        Raises:
            NotFoundError: if there is no such stage.
            ConfigError: if it is an optional stage without a section.
        """
        if stage_named(name) not in self.stages:
            raise ConfigError(
                f"{name} is optional, and its section of config {self.name!r} is null; turn it on with a section "
                f"{name}: in the config, or with --set {name}={{}}"
            )


def section_of(stage: Stage) -> tuple[Any, Any]:
    """Type and default of a stage's field in the run config; null for an optional stage."""
    if stage.is_optional:
        return stage.Config | None, Field(None, description=f"optional stage {stage.name}; null: without it")
    return stage.Config, Field(default_factory=stage.Config)


RunConfig: type[RunConfigBase] = create_model(
    "RunConfig",
    __base__=RunConfigBase,
    __doc__="One section per stage; omitted fields take the stage's defaults.",
    **{stage.name: section_of(stage) for stage in STAGES},  # type: ignore[call-overload]
)


def load_run_config(path: str, overrides: Sequence[str] = ()) -> RunConfigBase:
    """Read a YAML file, with the files that it extends, and apply `KEY=VALUE` overrides.

    Raises:
        ConfigError: naming the file or `--set` that set the wrong field, its value and the accepted ones.
    """
    return _overridden(read_layers(path), overrides)


def recorded_config(record: RunRecord, overrides: Sequence[str] = ()) -> RunConfigBase:
    """The config of a run, which an earlier version may have recorded, with `KEY=VALUE` overrides.

    Raises:
        ConfigError: naming the run or `--set`, the field, its value and the accepted ones.
    """
    recorded = Layer(f"run {record.run_id}", with_current_names(RunConfig, record.config))
    return _overridden([recorded], overrides)


def public_config(config: RunConfigBase) -> RunConfigBase:
    """The config with the public forms of its URLs; for display only."""
    return type(config).model_validate(config.model_dump(mode="json", context=PUBLIC))


def build_run_config(values: Mapping[str, Any], origin: str) -> RunConfigBase:
    """Validate values against every stage's config.

    Raises:
        ConfigError: naming `origin` and the first field that is wrong.
    """
    return _validated(values, [Layer(origin, values)])


def _overridden(layers: Sequence[Layer], overrides: Sequence[str]) -> RunConfigBase:
    before = merged(layers)
    values = apply_overrides(before, overrides)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        if overrides and _problem(before) == _sentence(error, _location(error)):  # they have not caused it
            return _validated(before, layers)
    return _validated(values, [*map(_override_layer, reversed(overrides)), *layers])


def _problem(values: Mapping[str, Any]) -> str | None:
    try:
        RunConfig.model_validate(values)
    except ValidationError as error:
        return _sentence(error, _location(error))
    return None


def _validated(values: Mapping[str, Any], layers: Sequence[Layer]) -> RunConfigBase:
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        location = _location(error)
        raise ConfigError(f"{source_of(location, values, layers)}: {_sentence(error, location)}") from None


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set dotted keys, such as `pretrain.peak_learning_rate=1e-3`; values are read as YAML.

    Raises:
        ConfigError: if an override is not KEY=VALUE, its value is not YAML or its key names no field or item.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(values))
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--set {override!r}: expected KEY=VALUE, such as --set pretrain.peak_learning_rate=1e-3")
        try:
            value = load_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override!r}: the value is not YAML ({error})") from None
        _set(changed, key.strip().split("."), value, override)
    return changed


def _set(values: Any, path: list[str], value: Any, override: str) -> None:
    for depth, name in enumerate(path):
        key = _key_in(values, name, ".".join(path[:depth]) or "config", override)
        if depth == len(path) - 1:
            values[key] = value
            return
        if isinstance(values, dict) and values.get(key) is None:
            values[key] = {}
        values = values[key]


def _key_in(values: Any, name: str, where: str, override: str) -> str | int:
    """`name` as a key of a section or an index of a list."""
    if isinstance(values, dict):
        return name
    if isinstance(values, list):
        if name.isdecimal() and int(name) < len(values):
            return int(name)
        raise ConfigError(f"--set {override!r}: {where} is a list of {len(values)}; use an index from 0")
    raise ConfigError(f"--set {override!r}: {where} is {values!r}, not a section with fields")


def _override_layer(override: str) -> Layer:
    """The option as nested values, items of lists by index."""
    key, _, text = override.partition("=")
    value = load_yaml(text)
    for name in reversed(key.strip().split(".")):
        value = {int(name) if name.isdecimal() else name: value}
    return Layer(f"--set {override}", value)


def _location(error: ValidationError) -> tuple[int | str, ...]:
    """Location of the first wrong field."""
    first = error.errors()[0]
    return (*first["loc"], first["ctx"]["old"]) if first["type"] == RENAMED else first["loc"]


def _sentence(error: ValidationError, location: tuple[int | str, ...]) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in location) or "config"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == RENAMED:
        return f"{field} is called {first['ctx']['new']} now{more}"
    if first["type"] == "extra_forbidden":
        return f"unknown field {field!r}{_suggestion(location)}{more}"
    message = first["msg"].removeprefix("Value error, ")
    value = "" if isinstance(first.get("input"), dict) else f", found {first.get('input')!r}"
    return f"{field}: {message}{value}{more}"


def _suggestion(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = RunConfig
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        model = annotation
    near = difflib.get_close_matches(str(location[-1]), list(model.model_fields), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; accepted are {', '.join(model.model_fields)}"
