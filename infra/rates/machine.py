"""The kind of machine that rates are of.

- `machine`: what decides the speed of a computation; `machine_key`: its digest, equal on machines of the same kind
- `settings`: environment variables that change it
"""

import functools
import hashlib
import os
from pathlib import Path
from typing import Any

from data_schemas.config import canonical_json
from infra.control_groups import cpu_count, cpu_quota
from infra.store import provenance

GPU_INFORMATION = "/proc/driver/nvidia/gpus"
KEY_DIGITS = 16
SETTINGS = (
    "ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "DNNL_DEFAULT_FPMATH_MODE",
    "ONEDNN_DEFAULT_FPMATH_MODE", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_NUM_THREADS", "OMP_NUM_THREADS",
    "OMP_THREAD_LIMIT", "OPENBLAS_CORETYPE",
)  # fmt: skip
"""Environment variables by which the libraries below torch use other instructions, or fewer threads."""


@functools.cache
def machine() -> dict[str, Any]:
    """Processor, flags, cores and their quota, GPUs, system and version of torch, which is not imported.

    And `settings`, if there are any, so that rates under other settings are not those of this machine.
    """
    described = provenance.device()
    return {
        **{name: described[name] for name in ("processor", "vendor", "flags", "system")},
        "cores": cpu_count(),
        "quota": cpu_quota(),
        "gpus": _gpu_models(),
        "torch": provenance.declared_versions(["torch"])["torch"],
        **({"settings": settings()} if settings() else {}),
    }


def settings() -> dict[str, str]:
    """The variables of `SETTINGS` that are set, with their values."""
    return {name: os.environ[name] for name in SETTINGS if os.environ.get(name)}


@functools.cache
def machine_key() -> str:
    """Digest of `machine`."""
    return key_of(machine())


def key_of(described: dict[str, Any]) -> str:
    """Digest of a description."""
    return hashlib.sha256(canonical_json(described).encode()).hexdigest()[:KEY_DIGITS]


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
