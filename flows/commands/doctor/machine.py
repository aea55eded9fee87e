"""Resources of the machine: processor, memory, room on disk, GPUs, and how fast they multiply."""

import functools
import os
import shutil
import tempfile
from pathlib import Path

from data_schemas.errors import EnvironmentProblem
from data_schemas.public_urls import public_url
from flows.commands.doctor.finding import Check, Finding, refusal_of
from flows.console import amount
from infra.control_groups import available_memory, cpu_count, cpu_quota, memory_limit, total_memory
from infra.precision import best_precision, devices_of, local_gpus
from infra.rates.machine import settings
from infra.rates.machine_rates import machine_rates, rates_file
from infra.store.access import check_access
from infra.store.provenance import device
from infra.workers.ray_session import WITHOUT_RAY

INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve")
"""Those that kernels of torch or of this package have variants for."""
DEMO_BYTES = 3_700_000_000
"""Peak of the demo (README): the command, its Prefect server, Ray and two workers that train."""
SHARED_MEMORY = "/dev/shm"
SHARED_BYTES = 256 * 2**20
"""Ray's object store on one machine."""
DISK_BYTES = 10**9
"""The demo's store and temporary files."""


def processor() -> Finding:
    """Name, cores, instruction sets."""
    cores, quota, flags = cpu_count(), cpu_quota(), cpu_flags()
    known = [name for name in INSTRUCTION_SETS if name in flags]
    of_container = f" (limit of the container: {quota:g})" if quota and quota <= cores else ""
    found = (
        f"{device()['processor']}, {cores} core{'s' * (cores > 1)}{of_container}, "
        f"{' '.join(known) or 'no vector instructions known'}"
    )
    advice = "with one core Ray's workers take turns: --set pretrain.workers=1 saves a process" if cores == 1 else ""
    return Finding("processor", found, advice)


def memory() -> Finding:
    """Memory of the machine, or of the container if it has less."""
    total, available = total_memory(), available_memory()
    of_container = " (limit of the container)" if memory_limit() else ""
    found = f"{amount(total, 'B')}{of_container}, {amount(available, 'B')} available"
    if available >= DEMO_BYTES:
        return Finding("memory", found)
    return Finding(
        "memory",
        found,
        f"the demo takes {amount(DEMO_BYTES, 'B')} with two workers on Ray; less without Ray, in one process: "
        f"{WITHOUT_RAY}",
    )


def shared_memory() -> Finding:
    """Room for Ray's object store, which is in files otherwise."""
    if not Path(SHARED_MEMORY).is_dir():
        return Finding("shared memory", f"no {SHARED_MEMORY}")
    free = shutil.disk_usage(SHARED_MEMORY).free
    found = f"{amount(free, 'B')} free in {SHARED_MEMORY}"
    if free >= SHARED_BYTES:
        return Finding("shared memory", found)
    return Finding(
        "shared memory",
        found,
        f"Ray keeps its objects in files in /tmp below {amount(SHARED_BYTES, 'B')}, slower: give a container more "
        "(docker run --shm-size=1g), or remove what fills it",
    )


def gpus() -> Finding:
    """GPUs that torch can use."""
    names = [gpu.name for gpu in local_gpus()]
    return Finding("GPUs", ", ".join(names) or "none that torch can use")


def products() -> Finding:
    """Measured speed of matrix products and memory, and the precision that `auto` takes."""
    rates = machine_rates(measure=True)
    assert rates is not None
    speeds = ", ".join(f"{precision} {rate / 1e9:,.0f} GFLOP/s" for precision, rate in rates.products.items())
    auto = best_precision(devices_of("processor" if not local_gpus() else "workers"))
    under = "".join(f", {name}={value}" for name, value in settings().items())
    found = (
        f"{speeds}, memory {rates.memory / 1e9:,.0f} GB/s, measured {rates.measured:%Y-%m-%d}{under}; auto takes {auto}"
    )
    missing = "" if _is_kept() else "the measurement is not kept; set XDG_CACHE_HOME to a writable folder"
    return Finding("matrix products", found, missing)


def _is_kept() -> bool:
    try:
        return rates_file().exists()
    except OSError:  # there is no home
        return False


def store_room(url: str) -> Finding:
    """Whether the store can be used, and the room on a local disk."""
    if "://" in url and not url.startswith("file://"):
        reason = refusal_of(lambda: check_access(url))
        return Finding("store", public_url(url), reason, blocks=bool(reason))
    folder = Path(url.removeprefix("file://"))
    return _room("store", _existing(folder), str(folder), "name another with --store", blocks=True)


def temporary_room() -> Finding:
    """Room for temporary files."""
    try:
        folder = Path(tempfile.gettempdir())
    except OSError as error:
        return Finding("temporary files", "none", f"{error.strerror}; set TMPDIR to a folder", blocks=True)
    named = Path(os.environ.get("TMPDIR") or folder)  # Python takes another folder if this one cannot be written to
    return _room("temporary files", _existing(named), str(named), "set TMPDIR to another folder", blocks=False)


def checks(url: str) -> list[Check]:
    """All of this module, in the order of the table."""
    return [
        processor, memory, shared_memory, gpus, products, functools.partial(store_room, url), temporary_room,
    ]  # fmt: skip


def _room(name: str, folder: Path, shown: str, other: str, blocks: bool) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        return Finding(name, shown, f"nothing can be written there ({error.strerror}); {other}", blocks)
    free = shutil.disk_usage(folder).free
    advice = "" if free >= DISK_BYTES else f"the demo wants {amount(DISK_BYTES, 'B')}: make room, or {other}"
    return Finding(name, f"{amount(free, 'B')} free in {shown}", advice)


def _existing(folder: Path) -> Path:
    return next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))


def cpu_flags() -> set[str]:
    """Instruction sets of the processor, by the names of Linux.

    Raises:
        EnvironmentProblem: if the system does not list them.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError as error:
        raise EnvironmentProblem(f"/proc/cpuinfo cannot be read ({error.strerror})") from error
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.partition(":")[2].split()}
