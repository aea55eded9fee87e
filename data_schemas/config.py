"""Base classes of all configs, and the encoding that makes a config part of a cache key.

- `StageConfig`: base of each stage's `Config`; `FrozenConfig`: base of its parts
- `runtime_field`: a field that changes how a stage works but not the bytes it writes; not part of the key
- `Location`: type of fields that hold a path or URL; keys and records hold its public form
- `key_values`: the fields of a config that decide bytes
- `with_current_names`: a config recorded by an earlier version, its renamed fields under their new names
- `canonical_json`: the encoding that keys are hashed from; it raises on values without a stable encoding
"""

import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, SerializationInfo, model_validator
from pydantic_core import PydanticCustomError

from data_schemas.errors import ConfigError
from data_schemas.public_urls import PUBLIC, public_url

RENAMED = "renamed_field"
"""Type of the validation error for an old field name; its context holds `old` and `new`."""


def _public_location(value: Any, info: SerializationInfo) -> Any:
    return public_url(value) if isinstance(value, str) and (info.context or {}).get("public") else value


Location = Annotated[str, PlainSerializer(_public_location)]


def runtime_field(default: Any, *, description: str, **constraints: Any) -> Any:
    """A pydantic field that changes speed, logging or safety but never the bytes of the artifact."""
    return Field(default, description=description, json_schema_extra={"runtime": True}, **constraints)


def _is_runtime(extra: Any) -> bool:
    return isinstance(extra, dict) and bool(extra.get("runtime"))


class FrozenConfig(BaseModel):
    """Settings: immutable, closed to unknown fields, every field documented with unit and source."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    renamed_fields: ClassVar[Mapping[str, str]] = {}
    """Old field name -> new one; configs with an old name are refused, records of earlier runs are translated."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_old_names(cls, values: Any) -> Any:
        for old, new in cls.renamed_fields.items():
            if isinstance(values, Mapping) and old in values:
                raise PydanticCustomError(RENAMED, "{old} is called {new} now", {"old": old, "new": new})
        return values


def key_values(config: BaseModel) -> dict[str, Any]:
    """Fields of a config that decide bytes, as JSON values, without runtime fields at any depth; public URLs."""
    return _without_runtime(config, config.model_dump(mode="json", context=PUBLIC))  # type: ignore[no-any-return]


def _without_runtime(value: Any, dumped: Any) -> Any:
    """A dumped value without the runtime fields of the configs in it."""
    if isinstance(value, BaseModel) and isinstance(dumped, dict):
        fields = type(value).model_fields
        return {
            name: _without_runtime(getattr(value, name, None), item)
            for name, item in dumped.items()
            if name not in fields or not _is_runtime(fields[name].json_schema_extra)
        }
    if isinstance(value, Mapping) and isinstance(dumped, dict) and len(value) == len(dumped):
        return {key: _without_runtime(item, dumped[key]) for key, item in zip(dumped, value.values(), strict=True)}
    if isinstance(value, tuple | list) and isinstance(dumped, list) and len(value) == len(dumped):
        return [_without_runtime(item, part) for item, part in zip(value, dumped, strict=True)]
    return dumped


ComputesOn = Literal["processor", "device", "workers"]
"""The part that computes: the processor of the run's own process, its GPU if it has one, or the Ray workers."""
PrecisionOn = Callable[[ComputesOn], str]
"""The precision that `auto` takes on these devices."""


class StageConfig(FrozenConfig):
    """Settings of a stage."""

    timeout_seconds: float | None = runtime_field(
        None,
        description="seconds after which the stage is stopped; what it finished is kept; no limit by default",
        gt=0,
    )

    def key_fields(self) -> dict[str, Any]:
        """The fields that decide the bytes written, as JSON values; URLs without signatures."""
        return key_values(self)

    def resolved(self, precision_on: PrecisionOn) -> Self:
        """The config with the values that `auto` takes.

        Args:
            precision_on: the best precision on the devices that compute; asked only for those that the config needs.
        """
        return self


def with_current_names(config: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded values of a config, `renamed_fields` under their new names at every depth; nothing is validated."""
    renamed: Mapping[str, str] = getattr(config, "renamed_fields", {})
    current = {renamed.get(name, name): value for name, value in values.items()}
    for name, field in config.model_fields.items():
        if name in current:
            current[name] = _with_current_names(field.annotation, current[name])
    return current


def _with_current_names(annotation: Any, value: Any) -> Any:
    """The same for the value of a field, whose annotation says where further configs are."""
    if isinstance(annotation, type) and issubclass(annotation, FrozenConfig):
        return with_current_names(annotation, value) if isinstance(value, Mapping) else value
    kind, arguments = get_origin(annotation), get_args(annotation)
    if kind in (Union, types.UnionType):
        for argument in arguments:
            value = _with_current_names(argument, value)
        return value
    if kind is Annotated:
        return _with_current_names(arguments[0], value)
    if isinstance(kind, type) and issubclass(kind, Mapping) and isinstance(value, Mapping):
        return {name: _with_current_names(arguments[1], item) for name, item in value.items()}
    if isinstance(kind, type) and issubclass(kind, Sequence) and isinstance(value, list):
        return [_with_current_names(arguments[0], item) for item in value]
    return value


def canonical_json(value: Any) -> str:
    """Encode `value` so that equal values give equal text on every host and Python version.

    Raises:
        ConfigError: for a value without a stable encoding (a set, an object, NaN), naming its position.
    """
    _refuse_unstable(value, "config")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _refuse_unstable(value: Any, position: str) -> None:
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{position} is {value}; only finite numbers can be part of a cache key")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ConfigError(f"{position} has the key {name!r}; only strings can be keys of a cache key")
            _refuse_unstable(item, f"{position}.{name}")
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        for index, item in enumerate(value):
            _refuse_unstable(item, f"{position}[{index}]")
    else:
        raise ConfigError(f"{position} is a {type(value).__name__}, which has no stable encoding for a cache key")
