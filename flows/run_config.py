"""A run's config: one section per stage, read from YAML, changed by `--set`, checked before anything starts.

- `RunConfig`: pydantic, one field per registered stage, so that a deployment's form shows every setting
- `load_run_config`: YAML file and overrides -> `RunConfig`, with errors that name file, field and what is accepted
"""

import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from data_schemas.config import StageConfig
from data_schemas.errors import ConfigError
from stages.registry import STAGES


class ExecutionConfig(BaseModel):
    """Where the work happens; changes no bytes and is part of no key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["inline", "processes", "ray"] = Field(
        "ray", description="where partitions are worked on: this process, local processes, or Ray tasks"
    )
    workers: int | None = Field(None, ge=1, description="partitions worked on at once; one per core where left out")


class RunConfigBase(BaseModel):
    """What is not a stage's; `RunConfig` adds a field per stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("unnamed", description="names the config in listings and reports")
    execution: ExecutionConfig = Field(default_factory=lambda: ExecutionConfig(), description="where the work happens")

    def stage_config(self, stage: str) -> StageConfig:
        """The section of one stage."""
        section = getattr(self, stage)
        assert isinstance(section, StageConfig)
        return section


RunConfig: type[RunConfigBase] = create_model(
    "RunConfig",
    __base__=RunConfigBase,
    __doc__="One section per stage; what is left out takes the stage's defaults.",
    **{stage.name: (stage.Config, Field(default_factory=stage.Config)) for stage in STAGES},  # type: ignore[call-overload]
)


def load_run_config(path: str, overrides: Sequence[str] = ()) -> RunConfigBase:
    """Read a YAML file and apply `KEY=VALUE` overrides.

    Raises:
        ConfigError: naming the file or `--set`, the field, what was found and what is accepted.
    """
    return build_run_config(apply_overrides(_read_yaml(path), overrides), path)


def build_run_config(values: Mapping[str, Any], origin: str) -> RunConfigBase:
    """Check values against every stage's config.

    Raises:
        ConfigError: naming `origin` and the first field that is wrong.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_sentence(error)}") from None


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set dotted keys, such as `pretrain.peak_learning_rate=1e-3`; values are read as YAML.

    Raises:
        ConfigError: where an override is not KEY=VALUE or its value is not YAML.
    """
    changed = copy.deepcopy(dict(values))
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--set {override!r}: expected KEY=VALUE, such as --set pretrain.peak_learning_rate=1e-3")
        try:
            value = yaml.safe_load(text)
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


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(sorted(str(found) for found in Path("configs").glob("*.yaml")))
        raise ConfigError(f"cannot read the run config {path}: {error}; configs here: {known or 'none'}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; expected sections such as 'pretrain:'")
    return values


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "config"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown field {where!r}{_suggestion(first['loc'])}{more}"
    message = first["msg"].removeprefix("Value error, ")
    found = "" if isinstance(first.get("input"), dict) else f", found {first.get('input')!r}"
    return f"{where}: {message}{found}{more}"


def _suggestion(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = RunConfig
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        model = annotation
    near = difflib.get_close_matches(str(location[-1]), list(model.model_fields), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; accepted are {', '.join(model.model_fields)}"
