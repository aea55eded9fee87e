"""One Ray session for all stages of a run: connects to the configured cluster, else starts Ray on this machine."""

import contextlib
import logging
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from data_schemas.errors import EnvironmentProblem
from infra.control_groups import available_memory, cpu_count, task_limit
from infra.named_errors import check_writable, storage_problem
from infra.workers.idle_workers import idle_workers
from infra.workers.ray_address import check_reachable

# Read by the C library when a worker process starts: keep freed memory instead of returning it to the system, and use
# huge pages. A CPU training step was 1.2x faster with it (docs/results.md).
MALLOC_TUNABLES = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=8589934592:glibc.malloc.hugetlb=1"

_ENVIRONMENT = {
    "GLIBC_TUNABLES": MALLOC_TUNABLES,
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # The controller takes one report per worker per poll; at the default of 2 s each report costs up to 2 s.
    # Polling costs too: 8 % of a core at 0.1 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # After a failure Ray Train counts workers that it could start before the cluster knows that a node is lost, and
    # waits this long for room before it counts again; 60 s by default. A wait that ends so is no failure.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    # By default Ray runs workers at nice 15, below all other processes of the machine.
    "RAY_worker_niceness": "0",
    # Ray's future default; without it every start prints a warning.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A node that loses its network closes no connection. Ray's own pings would notice that after 300 + 120 s, and until
    # then the driver would wait for the node's tasks, although the cluster knows the node as dead. Ray's servers close
    # a connection on which pings come within 60 s ("Too many pings"), unless they were started with a shorter time.
    "RAY_grpc_client_keepalive_time_ms": "75000",
    "RAY_grpc_client_keepalive_timeout_ms": "20000",
    # By default a task that the memory monitor of a node kills is tried again without end, in growing pauses.
    "RAY_task_oom_retries": "8",
}

# Ray's services have no password, and by default most of them listen on all interfaces. On Windows and macOS a Ray that
# is no cluster has the address 127.0.0.1 and listens there only; this variable makes Linux do the same.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_LOCAL = {**_LOOPBACK, "RAY_preload_python_modules": "infra.workers.preload"}

WITHOUT_RAY = "--set execution.engine=inline --set pretrain.workers=0 --set compress.workers=0"
OPEN_FILES = 256
"""With 64 its processes ended within seconds, with 256 a small run did not notice."""
ADDRESS_BYTES = 8_000_000_000
"""With 4 GB a process was aborted while Ray started, with 8 a small run did not notice; most is never used."""
TASKS = 300
"""Counted in a run with two training workers; each further one has 60 threads."""
LOG_BYTES = 4 << 20
"""Room for the first logs of a session."""
PRESTART_BYTES = 2 << 30
"""Memory to be available for a start ahead of need; an idle Ray takes a third of it."""
SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket."""
RAY_FOLDER = "/tmp/ray"
"""Ray's own choice if neither RAY_TMPDIR nor TMPDIR is set."""
SOCKET_IN_FOLDER = "/ray/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"


_starting: "_BackgroundStart | None" = None


def ensure_ray() -> None:
    """Connect to `RAY_ADDRESS` if it is set, else start Ray on this machine, unless connected already.

    Raises:
        EnvironmentProblem: if Ray cannot be reached or started.
    """
    if _starting:
        _starting.wait()
    _connect()
    if _starting and threading.current_thread() is threading.main_thread():
        _end_by_exception()


def prestart_ray(training_workers: int = 0, cpus_per_worker: float = 1.0) -> None:
    """Start Ray on this machine beside other work, for a later `ensure_ray`, which waits for it and reports errors.

    Does nothing if Ray is started already, runs elsewhere, or would take memory that this machine does not have.

    Args:
        training_workers: number of processes to start and keep for training, see `idle_workers`.
        cpus_per_worker: processors that each of them reserves.
    """
    global _starting
    if _starting or os.environ.get("RAY_ADDRESS") or available_memory() < PRESTART_BYTES:
        return
    _set_environment()
    import ray  # here: imports of two threads may see each other's half-imported modules

    if ray.is_initialized():
        return
    start_idle_workers: Callable[[], None] | None = None
    if training_workers:
        with contextlib.suppress(Exception):  # it relies on parts of Ray that are not public; training does not
            start_idle_workers = idle_workers(training_workers, cpus_per_worker)
    _starting = _BackgroundStart(start_idle_workers)


class _BackgroundStart:
    """A start of Ray in a thread that lives as long as Ray: with that thread, the kernel ends Ray's processes."""

    def __init__(self, then: Callable[[], None] | None) -> None:
        self._then = then
        self._has_ended, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(BaseException):  # `ensure_ray` tries again, and reports it
            _connect()
        if os.environ.get("GLIBC_TUNABLES") == MALLOC_TUNABLES:  # Ray's processes have it; others return their memory
            os.environ.pop("GLIBC_TUNABLES")
        self._has_ended.set()
        with contextlib.suppress(Exception):
            if self._then:
                self._then()
        self._closing.wait()

    def wait(self) -> None:
        """Wait until Ray is started, or could not be."""
        self._has_ended.wait()

    def close(self) -> None:
        """End the thread, after Ray."""
        self._closing.set()
        self._thread.join()


def _end_by_exception() -> None:
    """End at SIGTERM as an exception, as Ray arranges where the main thread starts it: the run closes its record."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))


def _set_environment() -> None:
    address = os.environ.get("RAY_ADDRESS")
    for name, value in (_ENVIRONMENT if address else {**_ENVIRONMENT, **_LOCAL}).items():
        os.environ.setdefault(name, value)


def _connect() -> None:
    address = os.environ.get("RAY_ADDRESS")
    _set_environment()
    import ray

    if ray.is_initialized():
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    if not address:
        ray._private.ray_constants.ENABLE_RAY_CLUSTER = False  # as `_LOOPBACK`, if ray was imported before
    try:
        if address:
            check_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        else:
            with _without_idle_services():
                ray.init(
                    num_cpus=max(2, cpu_count()),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    object_store_memory=256 * 2**20,
                    job_config=_job_config(),
                    _temp_dir=temporary_folder(),
                )
    except EnvironmentProblem:
        raise
    except Exception as error:  # of any type: a start that takes too long is a plain Exception
        if problem := storage_problem(error, RAY_FOLDER):
            raise problem from error
        raise _not_started(address, error) from error


class _PathsOfThisProcess(list[str]):
    """Folders in which workers look for modules first: none in which this process does not look.

    Ray adds the current folder. A folder `infra` or `stages` of the user's there would take the place of this package's
    in each worker, a queue.py that of Python's.
    """

    def extend(self, folders: Iterable[str]) -> None:
        own = {os.path.abspath(folder) for folder in sys.path}  # noqa: PTH100 - "" is the current one
        super().extend(folder for folder in folders if folder in own)


def _job_config() -> Any:
    from ray.job_config import JobConfig

    config = JobConfig()
    config._py_driver_sys_path = _PathsOfThisProcess()
    return config


@contextlib.contextmanager
def _without_idle_services() -> Iterator[None]:
    """Start Ray without three processes that a Ray of one machine and one run has no use for, while the block runs.

    They are the autoscaler's monitor, the monitor of the workers' logs, which nobody reads as `log_to_driver` is false,
    and the dashboard's server, which without a dashboard only reports usage; Ray waits for it before it starts workers.
    """
    from ray._private.node import Node

    def start_nothing(node: Any, **_: Any) -> None:
        node._webui_url = ""

    services = ("start_monitor", "start_log_monitor", "start_api_server")
    originals = {name: getattr(Node, name) for name in services if hasattr(Node, name)}
    for name in originals:
        setattr(Node, name, start_nothing)
    try:
        yield
    finally:
        for name, function in originals.items():
            setattr(Node, name, function)


def _not_started(address: str | None, error: Exception) -> EnvironmentProblem:
    action = f"join the Ray cluster at RAY_ADDRESS={address}" if address else "start Ray on this machine"
    reason = " ".join(str(error).split()).rstrip(".")[:500]
    if "Version mismatch" in reason:
        helps = "install the same versions of Ray and Python here and on the nodes"
    elif address:
        helps = "for a secured cluster set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
    else:
        helps = "the logs of its processes, in session_latest/logs of its temporary folder (/tmp/ray), say more"
    return EnvironmentProblem(f"cannot {action}: {reason}; {helps}; to work without Ray use {WITHOUT_RAY}")


def check_cluster() -> None:
    """Connect once to the head that RAY_ADDRESS names, if it does, else look for what a start of Ray here needs.

    Raises:
        EnvironmentProblem: if nothing listens there, or it refuses the token; if something is missing here.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address:
        try:
            check_reachable(address)
        except OSError as error:
            raise _not_started(address, error) from error
    else:
        _check_start()


def _check_start() -> None:
    """Refuse what would let a start of Ray wait for a minute, or for ever, for processes that have ended."""
    users = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    check_writable(Path(temporary_folder() or users), "set TMPDIR to another folder", LOG_BYTES)
    files, tasks = resource.getrlimit(resource.RLIMIT_NOFILE)[1], task_limit()
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    missing = ""
    if not shutil.which("bash"):
        missing = "Ray starts its workers in bash, and there is none in PATH; install it"
    elif files != resource.RLIM_INFINITY and files < OPEN_FILES:
        missing = f"Ray needs {OPEN_FILES} open files in a process, and {files} are allowed; raise that (ulimit -n)"
    elif addresses != resource.RLIM_INFINITY and addresses < ADDRESS_BYTES:
        missing = (
            f"a process of Ray reserves up to {ADDRESS_BYTES / 1e9:.0f} GB of addresses, and {addresses / 1e9:.1f} are "
            "allowed; raise that (ulimit -v)"
        )
    elif tasks and tasks < TASKS:
        missing = (
            f"Ray and its workers are about {TASKS} processes and threads, and {tasks} are allowed; raise that "
            "(docker run --pids-limit, ulimit -u)"
        )
    if missing:
        raise EnvironmentProblem(f"{missing}, or to work without Ray use {WITHOUT_RAY}")


def cluster_has_gpus() -> bool:
    """Whether the cluster that this process is connected to has GPUs."""
    import ray

    return bool(ray.cluster_resources().get("GPU", 0.0) >= 1)


def dashboard_url() -> str | None:
    """URL of the dashboard of the cluster that this process is connected to; None if there is none."""
    if "ray" not in sys.modules:
        return None
    import ray

    address = ray._private.worker.get_dashboard_url() if ray.is_initialized() else None
    return f"http://{address}" if address else None


def temporary_folder() -> str | None:
    """Folder for Ray's sockets if they would have too long a path in the user's; None for the user's."""
    users = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or ""
    return RAY_FOLDER if len(os.fsencode(users + SOCKET_IN_FOLDER)) > SOCKET_PATH_BYTES else None


def close_ray() -> None:
    """Disconnect; Ray is stopped if this process started it."""
    global _starting
    if _starting:
        _starting.wait()
    if "ray" in sys.modules:
        import ray

        if ray.is_initialized():
            ray.shutdown()
    if _starting:
        _starting.close()
        _starting = None
