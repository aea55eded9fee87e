"""Clusters that plans are made for: devices, memory, bandwidths, price, failures.

- `Cluster`: every figure; `cluster_of`: a cluster of an accelerator of the table
- `read_cluster`: by name, such as `512xH100`, or from a YAML file
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, Field, ValidationError

from data_schemas.config import FrozenConfig
from data_schemas.errors import ConfigError
from data_schemas.yaml_text import load_yaml
from infra.planner.accelerators import Accelerator, accelerator_names, find_accelerator

MAX_DEVICES = 10_000_000
MAX_SHOWN = 60
EXAMPLE = "a number of devices and an accelerator, such as 512xH100, or a YAML file"
POWER_USAGE = 1.2
"""Power of the building per watt of the devices and their hosts (operators report 1.1 to 1.5)."""
HOST_SHARE = 0.35
"""Power of hosts and network per watt of the devices: an H100 node of 10.2 kW holds 5.6 kW of devices (DGX H100)."""


class Cluster(FrozenConfig):
    """Devices of one kind in nodes of equal size; every figure in bytes, seconds, watts, dollars or hours."""

    model_config = ConfigDict(allow_inf_nan=False)

    name: str = Field("", description="name in tables")
    device: str = Field(description=f"accelerator: {', '.join(accelerator_names())}; or a name of your own")
    devices: int = Field(gt=0, le=MAX_DEVICES, description="number of devices")
    node_devices: int = Field(gt=0, le=MAX_DEVICES, description="devices per node")
    memory_bytes: float = Field(ge=1e8, le=1e15, description="bytes of memory per device")
    peak_flops: float = Field(ge=1e9, le=1e20, description="16-bit FLOPs per second of a device, from the data sheet")
    sustained_flops: float = Field(
        ge=1e9, le=1e20, description="16-bit FLOPs per second of large matrix products, measured"
    )
    attention_flops: float = Field(ge=1e9, le=1e20, description="FLOPs per second of fused attention, measured")
    fp8_flops: float = Field(
        0, ge=0, le=1e20, description="8-bit FLOPs per second of large products, measured; 0: none"
    )
    memory_bandwidth: float = Field(ge=1e6, le=1e16, description="bytes per second of a device's memory")
    link_bandwidth: float = Field(
        ge=1e5, le=1e16, description="bytes per second and direction within a node, per device"
    )
    network_bandwidth: float = Field(
        ge=1e5, le=1e16, description="bytes per second and direction between nodes, per device"
    )
    collective_seconds: float = Field(
        0, ge=0, le=1, description="what each collective of own training takes beside its bytes; 0: nothing, or unknown"
    )
    watts: float = Field(gt=0, le=1e6, description="watts of a device under load")
    price_per_hour: float = Field(ge=0, le=1e6, description="US dollars per device and hour")
    mtbf_hours: float = Field(ge=1e-3, le=1e12, description="mean device-hours between failures that end a job")
    source: str = Field("", description="origin of the figures")

    @property
    def kilowatts(self) -> float:
        """Power of the whole cluster, with hosts, network and cooling."""
        return self.devices * self.watts * (1 + HOST_SHARE) * POWER_USAGE / 1_000


def cluster_of(accelerator: Accelerator, devices: int) -> Cluster:
    """A cluster of an accelerator of the table."""
    node = min(accelerator.node_devices, devices)
    fields = {**_figures(accelerator), "node_devices": node, "devices": devices}
    return Cluster(name=f"{devices} x {accelerator.name}", **fields)


def _figures(accelerator: Accelerator) -> dict[str, Any]:
    figures = {name: value for name, value in vars(accelerator).items() if name not in ("name", "pattern")}
    return {**figures, "device": accelerator.name}


def read_cluster(text: str) -> Cluster:
    """The cluster by name, such as `512xH100` or `H100:512`, or from a YAML file.

    Raises:
        ConfigError: if the text names neither, or a field of the file is missing or wrong.
    """
    if text.lower().endswith((".yaml", ".yml")) or Path(text).is_file():
        return _from_file(text)
    match = re.fullmatch(r"\s*([\d_,]+)\s*[x*×]\s*(\S.*)|\s*(\S.*?)\s*[:x*×]\s*([\d_,]+)\s*", text, re.IGNORECASE)
    if re.search(r"[,;+&]\s*\d+\s*[x*×]", text):
        raise ConfigError(f"--cluster {text!r} names devices of several kinds; plans are for {EXAMPLE}")
    if match is None:
        accelerator = find_accelerator(text)
        hint = f"; how many {accelerator.name}? such as {64}x{accelerator.name}" if accelerator else ""
        raise ConfigError(f"--cluster {text!r} is no cluster{hint}; expected {EXAMPLE}")
    name = (match[2] or match[3]).strip()
    count = int(re.sub(r"[_,]", "", match[1] or match[4]) or 0)
    accelerator = find_accelerator(name)
    if accelerator is None:
        raise ConfigError(
            f"--cluster {text!r}: no accelerator is called {name!r}; known are {', '.join(accelerator_names())}; "
            "others can be described in a YAML file (docs/planner.md)"
        )
    if not 1 <= count <= MAX_DEVICES:
        raise ConfigError(f"--cluster {text!r} has {count} devices; expected at least 1, at most {MAX_DEVICES:,}")
    return cluster_of(accelerator, count)


def _from_file(path: str) -> Cluster:
    values = _read_mapping(path)
    known = find_accelerator(str(values.get("device", "")))
    figures = _figures(known) if known else {}
    try:
        cluster = Cluster.model_validate({"name": Path(path).stem, **figures, **values})
    except ValidationError as error:
        raise ConfigError(f"{path}: {_sentence(error, values)}") from None
    for name in ("sustained_flops", "attention_flops"):
        if getattr(cluster, name) > cluster.peak_flops:
            raise ConfigError(
                f"{path}: {name} is {getattr(cluster, name):.4g}, more than peak_flops, {cluster.peak_flops:.4g}; "
                "expected what large products reach of the data sheet's rate"
            )
    return cluster.model_copy(update={"node_devices": min(cluster.node_devices, cluster.devices)})


def _read_mapping(path: str) -> dict[str, Any]:
    try:
        values = load_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"the cluster file {path} cannot be read ({reason}); expected {EXAMPLE}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}, not a mapping; expected device, devices and others")
    for name, value in values.items():
        if isinstance(value, bool):
            raise ConfigError(f"{path}: {_expected(str(name), 'bool', value)}")
    return {str(name): value for name, value in values.items()}


def _sentence(error: ValidationError, values: dict[str, Any]) -> str:
    problems = error.errors()
    if unknown := [str(problem["loc"][0]) for problem in problems if problem["type"] == "extra_forbidden"]:
        names = ", ".join(repr(name) for name in unknown)
        return f"unknown field{'s' * (len(unknown) > 1)} {names}; accepted are {', '.join(Cluster.model_fields)}"
    missing = [str(problem["loc"][0]) for problem in problems if problem["type"] == "missing"]
    if essential := [name for name in ("device", "devices") if name in missing]:
        return f"{' and '.join(essential)} missing; a cluster needs device and devices"
    if missing:
        return (
            f"{', '.join(missing)} missing: {_shown(values.get('device'))} is not in the table "
            f"({', '.join(accelerator_names())}), so that the file must give them"
        )
    first = problems[0]
    return _expected(str(first["loc"][0]), first["type"], first.get("input"), first.get("ctx", {}))


LIMITS = {
    "greater_than": "more than {gt:g}", "greater_than_equal": "{ge:g} or more", "less_than_equal": "{le:g} or less",
    "finite_number": "a finite number",
}  # fmt: skip
"""Values that a field accepts, by the kind of pydantic's error."""
KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text"}


def _expected(field: str, problem: str, found: Any, limits: Mapping[str, Any] | None = None) -> str:
    """Values that a field accepts, and its own; a figure with a unit is converted for the reader."""
    described = Cluster.model_fields.get(field)
    if described is None:
        return f"unknown field {field!r}; accepted are {', '.join(Cluster.model_fields)}"
    kind = KINDS.get(described.annotation, "a text")
    accepted = LIMITS[problem].format(**limits or {}) if problem in LIMITS else kind
    is_unit = isinstance(found, str) and len(found) <= MAX_SHOWN and kind != "a text" and problem not in LIMITS
    plain = _plain_number(found) if is_unit else None
    hint = f"; write {plain:.10g}" if plain is not None else ""
    return f"{field}: expected {described.description}: {accepted}, found {_shown(found)}{hint}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _plain_number(text: str) -> float | None:
    """A figure in base units of a text such as `900 GB/s`, `400 Gbit/s`, `80 GiB`, `$2.50` or `30 days`; None if none.

    Bandwidths in bits become bytes per second, and times hours.
    """
    match = re.fullmatch(
        r"\s*[$€]?\s*([\d_]*\.?\d+(?:e[-+]?\d+)?)\s*([kKMGTPE]?)(i?)\s*([A-Za-z]*)(?:\s*/\s*\w+)*\s*",
        re.sub(r"(?<=\d),(?=\d{3}(\D|$))", "", text),
    )
    if match is None:
        return None
    scale = float(1024 if match[3] else 1000)
    value: float = float(match[1].replace("_", "")) * scale ** " KMGTPE".index(match[2].upper() or " ")
    unit = match[4]
    if unit.lower().startswith("bit") or unit in ("b", "bps"):
        return value / 8
    hours = {"d": 24.0, "day": 24.0, "days": 24.0, "y": 8_760.0, "year": 8_760.0, "years": 8_760.0}
    return value * hours.get(unit.lower(), 1.0)
