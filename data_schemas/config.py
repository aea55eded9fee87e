"""What every stage's config has in common, and the encoding that makes a config part of a cache key.

- `StageConfig`: base of each stage's `Config`; `FrozenConfig`: of a part of one
- `runtime_field`: a field that steers how a stage works but not what bytes it writes; left out of the key
- `canonical_json`: the one encoding that keys are made from; it raises on values that are not stable
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from data_schemas.errors import ConfigError


def runtime_field(default: Any, *, description: str, **constraints: Any) -> Any:
    """A pydantic field that changes speed, logging or safety but never the bytes of the artifact."""
    return Field(default, description=description, json_schema_extra={"runtime": True}, **constraints)


def _is_runtime(extra: Any) -> bool:
    return isinstance(extra, dict) and bool(extra.get("runtime"))


class FrozenConfig(BaseModel):
    """Settings: immutable, closed to unknown fields, every field documented with unit and source."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class StageConfig(FrozenConfig):
    """A stage's settings."""

    timeout_seconds: float | None = runtime_field(
        None,
        description="seconds after which an attempt at the stage is stopped and retried; none where left out",
        gt=0,
    )

    def key_fields(self) -> dict[str, Any]:
        """The fields that decide the bytes written, as JSON values."""
        runtime = {name for name, field in type(self).model_fields.items() if _is_runtime(field.json_schema_extra)}
        return self.model_dump(mode="json", exclude=runtime)


def canonical_json(value: Any) -> str:
    """Encode `value` so that equal values give equal text on every host and Python version.

    Raises:
        ConfigError: for a value with no stable encoding (a set, an object, NaN), naming where it stands.
    """
    _refuse_unstable(value, "config")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _refuse_unstable(value: Any, where: str) -> None:
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{where} is {value}; only finite numbers can be part of a cache key")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ConfigError(f"{where} has the key {name!r}; only strings can be keys of a cache key")
            _refuse_unstable(item, f"{where}.{name}")
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        for index, item in enumerate(value):
            _refuse_unstable(item, f"{where}[{index}]")
    else:
        raise ConfigError(f"{where} is a {type(value).__name__}, which has no stable encoding for a cache key")
