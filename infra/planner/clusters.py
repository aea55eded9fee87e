"""Clusters that plans are made for: devices, memory, bandwidths, price, failures.

- `Cluster`: every figure; `cluster_of`: a cluster of an accelerator of the table
- `read_cluster`: by name, such as `512xH100`, or from a YAML file
"""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, Field, ValidationError

from data_schemas.config import FrozenConfig
from data_schemas.errors import ConfigError
from infra.planner.accelerators import Accelerator, accelerator_names, find_accelerator

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
    devices: int = Field(gt=0, description="number of devices")
    node_devices: int = Field(gt=0, description="devices per node")
    memory_bytes: float = Field(gt=0, description="memory per device")
    peak_flops: float = Field(gt=0, description="16-bit FLOPs per second of a device, from the data sheet")
    sustained_flops: float = Field(gt=0, description="16-bit FLOPs per second of large matrix products, measured")
    attention_flops: float = Field(gt=0, description="FLOPs per second of fused attention, measured")
    fp8_flops: float = Field(0, ge=0, description="8-bit FLOPs per second of large products, measured; 0: none")
    memory_bandwidth: float = Field(gt=0, description="bytes per second of a device's memory")
    link_bandwidth: float = Field(gt=0, description="bytes per second and direction within a node, per device")
    network_bandwidth: float = Field(gt=0, description="bytes per second and direction between nodes, per device")
    watts: float = Field(gt=0, description="power of a device under load")
    price_per_hour: float = Field(ge=0, description="US dollars per device and hour")
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
    if count < 1:
        raise ConfigError(f"--cluster {text!r} has {count} devices; expected at least 1")
    return cluster_of(accelerator, count)


def _from_file(path: str) -> Cluster:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"the cluster file {path} cannot be read ({reason}); expected {EXAMPLE}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}, not a mapping; expected device, devices and others")
    known = find_accelerator(str(values.get("device", "")))
    figures = _figures(known) if known else {}
    try:
        given = {str(name): value for name, value in values.items()}
        cluster = Cluster.model_validate({"name": Path(path).stem, **figures, **given})
        return cluster.model_copy(update={"node_devices": min(cluster.node_devices, cluster.devices)})
    except ValidationError as error:
        raise ConfigError(f"{path}: {_sentence(error, values)}") from None


def _sentence(error: ValidationError, values: dict[str, Any]) -> str:
    problems = error.errors()
    missing = [str(problem["loc"][0]) for problem in problems if problem["type"] == "missing"]
    if essential := [name for name in ("device", "devices") if name in missing]:
        return f"{' and '.join(essential)} missing; a cluster needs device and devices"
    if missing:
        return (
            f"{', '.join(missing)} missing: {values.get('device')!r} is not in the table "
            f"({', '.join(accelerator_names())}), so that the file must give them"
        )
    first = problems[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown field {field!r}; accepted are {', '.join(Cluster.model_fields)}"
    return f"{field}: {first['msg']}, found {first.get('input')!r}"
