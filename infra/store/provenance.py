"""Provenance of a result: commit of the code, versions of packages, the machine."""

import functools
import os
import platform
import subprocess
import unicodedata
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

ABSENT = "absent"
"""Version of a package that is not installed."""
PACKAGES_THAT_MATTER = (
    "headrace", "torch", "ray", "prefect", "pyarrow", "numpy", "tokenizers", "datasketch", "ftfy", "safetensors",
)  # fmt: skip


@functools.cache
def code_version() -> dict[str, Any]:
    """Git commit of the code and whether its tree was dirty; without git the version of the package."""
    root = Path(__file__).resolve().parents[2]
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return {"version": metadata.version("headrace")}


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@functools.cache
def headrace_version() -> str:
    """Version of the installed package."""
    return _installed_version("headrace")


def package_versions(declared: Sequence[str] = ()) -> dict[str, str]:
    """Installed versions of the packages that matter for any result, and of those that a stage declares."""
    names = dict.fromkeys((*PACKAGES_THAT_MATTER, *declared))
    return {"python": platform.python_version()} | {name: _installed_version(name) for name in names}


def declared_versions(declared: Sequence[str]) -> dict[str, str]:
    """Installed versions of packages, without the build (`+cpu`), by name in sorted order."""
    return {name: without_build(_installed_version(name)) for name in sorted(declared)}


def without_build(version: str) -> str:
    """`2.13.0` of `2.13.0+cpu`: builds of one version compute the same function."""
    return version.partition("+")[0]


def _installed_version(name: str) -> str:
    if name == "unicodedata":
        return unicodedata.unidata_version
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ABSENT


@functools.cache
def device() -> dict[str, Any]:
    """Description of the machine."""
    return {
        "processor": _processor_name(),
        "vendor": _cpuinfo("vendor_id"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "flags": _vector_flags(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _vector_flags() -> list[str]:
    return sorted({"avx512f", "avx512_bf16", "amx_bf16"} & set(_cpuinfo("flags").split()))


def _cpuinfo(field: str) -> str:
    """The first value of a field of /proc/cpuinfo; empty on systems without it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")
