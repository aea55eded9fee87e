"""Room for training workers, before the first stage of a run.

- `check_training_room`: refuses more workers than this machine, or a cluster that does not grow, has room for
- `check_training_memory`: refuses workers whose memory this machine, or its container, does not have
- `check_training_compiler`: refuses `compile` without a C++ compiler
- `workers_at_once`: workers that do not wait for a processor, for estimates
"""

import json
import os
import re
import shutil

from data_schemas.errors import EnvironmentProblem
from infra.control_groups import cpu_count, memory_limit, total_memory
from infra.precision import local_gpus
from infra.workers.capacity import room_problem
from infra.workers.ray_session import WITHOUT_RAY, ensure_ray

STATUS = "__autoscaling_status"
"""Key in Ray's store of what its autoscaler last saw."""
MEMORY_SHARE = 0.95
"""Ray ends workers when more of the memory is in use."""
_NODE_OF_ITS_OWN_TYPE = re.compile("node_[0-9a-f]{56}")


def check_training_room(stage: str, workers: int, cpus_per_worker: float) -> None:
    """Refuse more training workers than this machine, or a cluster that does not grow, has room for.

    Args:
        stage: name for the message.
        workers: the fewest that can train.
        cpus_per_worker: CPUs of each, if there are no GPUs.

    Raises:
        EnvironmentProblem: if they do not fit, with the number that does, or if the cluster cannot be reached.
    """
    address = os.environ.get("RAY_ADDRESS", "local")
    if "://" in address:
        return  # a job is submitted there, and checks it
    if address == "local":
        gpus, cpus = len(local_gpus()), max(2, cpu_count())
    else:
        ensure_ray()
        import ray

        resources = ray.cluster_resources()
        gpus, cpus = int(resources.get("GPU", 0)), resources.get("CPU", 0.0)
    problem = room_problem(stage, workers, cpus_per_worker, gpus, cpus)
    if problem and (address == "local" or not cluster_may_grow()):
        raise problem


def check_training_memory(stage: str, planned_bytes: int) -> None:
    """Refuse training workers that together need more memory than this machine, or its container, has.

    Nothing is refused on a cluster, or if GPUs hold the network.

    Args:
        stage: name for the message.
        planned_bytes: peak of all processes of the run, as planned.

    Raises:
        EnvironmentProblem: with both sizes, and with what takes less.
    """
    total = total_memory()
    if os.environ.get("RAY_ADDRESS", "local") != "local" or local_gpus() or planned_bytes <= MEMORY_SHARE * total:
        return
    place = "this container" if memory_limit() else "this machine"
    raise EnvironmentProblem(
        f"{stage} needs about {planned_bytes / 1e9:.1f} GB of memory for its workers on Ray, and {place} has "
        f"{total / 1e9:.1f} GB; give it more, or train in one process, which takes less memory and more time: "
        f"{WITHOUT_RAY}"
    )


def check_training_compiler(stage: str) -> None:
    """Refuse layers to be compiled for this machine's processor without the C++ compiler that torch takes.

    Args:
        stage: name for the message.

    Raises:
        EnvironmentProblem: with the compiler that is missing.
    """
    compiler = os.environ.get("CXX", "g++")
    if os.environ.get("RAY_ADDRESS", "local") != "local" or local_gpus() or shutil.which(compiler):
        return
    raise EnvironmentProblem(
        f"{stage}.compile needs a C++ compiler, and {compiler} is not installed; on Debian and Ubuntu: apt-get install "
        f"g++; or name another in CXX, or use --set {stage}.compile=false"
    )


def workers_at_once(workers: int) -> int:
    """Training workers that compute at the same time: all on GPUs or a cluster, else one per processor here."""
    on_cluster = os.environ.get("RAY_ADDRESS", "local") != "local"
    return workers if on_cluster or local_gpus() else min(workers, cpu_count())


def cluster_may_grow() -> bool:
    """Whether the cluster that this process is connected to appears to have an autoscaler."""
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    return bool(is_autoscaler_v2()) or status_may_grow(_internal_kv_get(STATUS))


def status_may_grow(status: bytes | None) -> bool:
    """Whether an autoscaler's status has node types that it could start; of a fixed cluster, each node is a type."""
    try:
        types = json.loads(status or b"")["autoscaler_report"]["active_nodes"]
        return not types or not all(_NODE_OF_ITS_OWN_TYPE.fullmatch(name) for name in types)
    except (ValueError, KeyError, TypeError):
        return True
