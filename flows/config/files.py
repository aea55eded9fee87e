"""Run configs as YAML files, of which one may extend another: `extends: demo.yaml`.

A file's values are merged over those of the file that it extends, before anything is checked: mappings at every depth,
while lists and scalars are replaced. The path in `extends` is relative to the file that contains it.

- `read_layers`: the values of a file and of the files that it extends
- `merged`: all layers as one mapping; `source_of`: the layer that set a field, for error messages
"""

import copy
import os.path
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_schemas.errors import ConfigError
from data_schemas.yaml_text import load_yaml

EXTENDS = "extends"


@dataclass(frozen=True)
class Layer:
    """Values from one source."""

    source: str
    """Path of the file, or the `--set` option."""
    values: Mapping[str, Any]


def read_layers(path: str) -> list[Layer]:
    """Values of a config file, before those of the file that it extends, and so on.

    Raises:
        ConfigError: if a file cannot be read, is not a YAML mapping, or is extended by itself.
    """
    layers: list[Layer] = []
    while True:
        chain = [layer.source for layer in layers]
        if _resolved(path) in map(_resolved, chain):
            raise ConfigError(f"{EXTENDS} leads in a circle: {' -> '.join([*chain, path])}; remove one of the lines")
        values = _read_yaml(path, chain)
        base = values.pop(EXTENDS, None)
        layers.append(Layer(path, values))
        if base is None:
            return layers
        if not isinstance(base, str):
            raise ConfigError(
                f"{path}: {EXTENDS} is {base!r}; expected the path of one run config, relative to this file"
            )
        path = os.path.normpath(Path(path).parent / base)


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """Values of all layers, those of the first layer taking precedence."""
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        values = _merge(values, layer.values)
    return values


def _merge(base: Any, changes: Any) -> Any:
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return copy.deepcopy(changes)
    merged_items = {name: _merge(base.get(name), value) for name, value in changes.items()}
    return {**base, **merged_items}


def source_of(location: Sequence[int | str], values: Mapping[str, Any], layers: Sequence[Layer]) -> str:
    """The layer that set a field, or the section around it.

    Args:
        location: as in a validation error, which also names the kind of a list's item.
        values: the merged values.
        layers: the sources of `values`, the one that takes precedence first.
    """
    path = _existing(location, values)
    for length in range(len(path), 0, -1):
        for layer in layers:
            if len(_existing(path[:length], layer.values)) == length:
                return layer.source
    return layers[0].source


def _existing(location: Sequence[int | str], values: Any) -> list[int | str]:
    """The names of `location` that are keys or indices in `values`, each inside the one before."""
    path = []
    for name in location:
        if isinstance(values, Mapping):
            is_there = name in values
        else:
            is_there = isinstance(values, list) and isinstance(name, int) and name < len(values)
        if is_there:
            path.append(name)
            values = values[name]
    return path


def _read_yaml(path: str, chain: Sequence[str]) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if chain:
            raise ConfigError(f"{chain[-1]}: {EXTENDS}: cannot read {path}: {error}") from None
        available = ", ".join(sorted(str(file) for file in Path("configs").glob("*.yaml")))
        raise ConfigError(f"cannot read the run config {path}: {error}; configs here: {available or 'none'}") from None
    try:
        values = load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; expected sections such as 'pretrain:'")
    return values


def _resolved(path: str) -> Path:
    return Path(path).resolve()
