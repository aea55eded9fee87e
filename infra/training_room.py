"""Room for training workers, before the first stage of a run.

- `check_training_room`: refuses more workers than this machine, or a cluster that does not grow, has room for
"""

import json
import os
import re

from infra.precision import local_gpus
from infra.workers.capacity import room_problem
from infra.workers.ray_session import cpu_count, ensure_ray

STATUS = "__autoscaling_status"
"""Key in Ray's store of what its autoscaler last saw."""
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
