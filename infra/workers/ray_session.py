"""One Ray session for all stages of a run: connects to the configured cluster, else starts Ray on this machine."""

import logging
import os

from data_schemas.errors import EnvironmentProblem

# Read by the C library when a worker process starts: keep freed memory instead of returning it to the system, and use
# huge pages. A CPU training step was 1.2x faster with it (docs/results.md).
MALLOC_TUNABLES = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=8589934592:glibc.malloc.hugetlb=1"

_ENVIRONMENT = {
    "GLIBC_TUNABLES": MALLOC_TUNABLES,
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # The controller takes one report per worker per poll; at the default of 2 s each report costs up to 2 s.
    # Polling costs too: 8 % of a core at 0.1 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # By default Ray runs workers at nice 15, below all other processes of the machine.
    "RAY_worker_niceness": "0",
    # Ray's future default; without it every start prints a warning.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def cpu_count() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ensure_ray() -> None:
    """Connect to `RAY_ADDRESS` if it is set, else start Ray on this machine, unless connected already.

    Raises:
        EnvironmentProblem: if Ray cannot be reached or started.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(
                num_cpus=max(2, cpu_count()),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                object_store_memory=256 * 2**20,
            )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        action = f"join the Ray cluster at RAY_ADDRESS={address}" if address else "start Ray on this machine"
        raise EnvironmentProblem(
            f"cannot {action}: {error}. For a secured cluster set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN; "
            "to work without Ray use --set execution.engine=inline --set pretrain.workers=0 --set compress.workers=0"
        ) from error


def close_ray() -> None:
    """Disconnect; Ray is stopped if this process started it."""
    import sys

    if "ray" in sys.modules:
        import ray

        if ray.is_initialized():
            ray.shutdown()
