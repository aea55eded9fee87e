"""Differences between an earlier execution of a stage and the next, as lines for `plan` and for errors.

- `field_changes`: fields of the config
- `package_changes`: versions of packages
"""

import math
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import yaml

from data_schemas.config import StageConfig, with_current_names
from data_schemas.manifest import Manifest
from infra.store import provenance


def package_changes(before: Manifest, declared: Sequence[str]) -> list[str]:
    """Lines such as `trafilatura 2.0.0 -> 2.1.0`; packages that the manifest does not mention count as unchanged."""
    recorded = {name: provenance.without_build(version) for name, version in before.packages.items()}
    now = provenance.declared_versions(declared)
    return [f"{name} {recorded[name]} -> {now[name]}" for name in now if recorded.get(name, now[name]) != now[name]]


def field_changes(kind: type[StageConfig], before: Mapping[str, Any], config: StageConfig) -> list[str]:
    """Lines such as `peak_learning_rate: 0.0006 -> 0.001` for each key field that differs, nested by dotted name."""
    now, recorded = config.key_fields(), with_current_names(kind, before)
    return list(_leaf_changes({name: recorded.get(name) for name in now}, now, ""))


def _leaf_changes(before: Any, now: Any, field: str) -> list[str]:
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before, now = (dict(enumerate(values)) for values in (before, now))
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = list(dict.fromkeys([*now, *before]))
        changes = [_leaf_changes(before.get(name), now.get(name), f"{field}.{name}".lstrip(".")) for name in names]
        return [change for inner in changes for change in inner]
    if isinstance(before, list) and isinstance(now, list):
        return _list_changes(before, now, field)
    return [] if before == now else [f"{field}: {_as_yaml(before)} -> {_as_yaml(now)}"]


def _list_changes(before: Sequence[Any], now: Sequence[Any], field: str) -> list[str]:
    """Lines such as `passes: prune removed`, in the order of the lists; a mapping is named by its `kind`."""
    old, new = [_as_yaml(value) for value in before], [_as_yaml(value) for value in now]
    changes = []
    for _, start, stop, new_start, new_stop in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if old[start:stop] != new[new_start:new_stop]:
            changes += [f"{field}: {_name(value)} removed" for value in before[start:stop]]
            changes += [f"{field}: {_name(value)} added" for value in now[new_start:new_stop]]
    return changes


def _name(value: Any) -> str:
    return str(value["kind"]) if isinstance(value, Mapping) and "kind" in value else _as_yaml(value)


def _as_yaml(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")
