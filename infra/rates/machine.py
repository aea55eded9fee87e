"""The kind of machine that rates are of.

- `machine`: what decides the speed of a computation; `machine_key`: its digest, equal on machines of the same kind
"""

import functools
import hashlib
from pathlib import Path
from typing import Any

from data_schemas.config import canonical_json
from infra.store import provenance
from infra.workers.ray_session import cpu_count

GPU_INFORMATION = "/proc/driver/nvidia/gpus"
CPU_QUOTA = "/sys/fs/cgroup/cpu.max"
KEY_DIGITS = 16


@functools.cache
def machine() -> dict[str, Any]:
    """Processor, flags, cores and their quota, GPUs, system and version of torch, which is not imported."""
    described = provenance.device()
    return {
        **{name: described[name] for name in ("processor", "vendor", "flags", "system")},
        "cores": cpu_count(),
        "quota": _cpu_quota(),
        "gpus": _gpu_models(),
        "torch": provenance.declared_versions(["torch"])["torch"],
    }


@functools.cache
def machine_key() -> str:
    """Digest of `machine`."""
    return key_of(machine())


def key_of(described: dict[str, Any]) -> str:
    """Digest of a description."""
    return hashlib.sha256(canonical_json(described).encode()).hexdigest()[:KEY_DIGITS]


def _cpu_quota() -> float | None:
    """Processors that the container may use, if its control group limits them."""
    try:
        quota, period = Path(CPU_QUOTA).read_text().split()
        return round(int(quota) / int(period), 2)
    except (OSError, ValueError):  # no such file, or "max 100000"
        return None


def _gpu_models() -> list[str]:
    """Models of the NVIDIA GPUs, by the driver's files."""
    models = []
    for path in sorted(Path(GPU_INFORMATION).glob("*/information")):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        models += [line.split(":", 1)[1].strip() for line in lines if line.startswith("Model:")]
    return models
