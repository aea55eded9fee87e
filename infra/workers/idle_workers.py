"""Worker processes of Ray Train that start, and import torch, beside the stages before training.

Ray gives an actor an idle process only if it was started for the actor's runtime environment. Ray Train's actors always
have one, so the processes that Ray starts by itself do not serve them. If what is assumed here about their environments
no longer holds, the processes stay idle and others are started: that costs time and memory, and nothing else.

- `worker_environment`: runtime environment of training workers on a Ray of this machine
- `idle_workers`: starts idle processes for them and for their controller
"""

import json
import os
from collections.abc import Callable

from infra.control_groups import available_memory
from infra.workers.preload import MODULES

PRELOADED = "ray.train.torch,torch._dynamo,modeling.transformer"
"""Modules that each training worker imports; the rest takes less than a second."""
KEPT_SECONDS = 3600
"""Time after which Ray may end idle processes that were not needed."""
ANSWER_SECONDS = 10.0
SETUP_SECONDS = 600
RAY_BYTES = 2 << 30
"""Memory to be available for what runs meanwhile."""
WORKER_BYTES = 500_000_000


def worker_environment(cpus_per_worker: float) -> dict[str, dict[str, str]]:
    """Runtime environment of training workers; those of a cluster have none, as they start when they are needed.

    Ray sets OMP_NUM_THREADS, unless the user did, when an actor begins: after these imports, which read it.
    """
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, int(cpus_per_worker))))
    return {"env_vars": {"OMP_NUM_THREADS": threads, MODULES: PRELOADED}}


def idle_workers(count: int, cpus_per_worker: float) -> Callable[[], None]:
    """A function that starts idle processes on the Ray of this machine, for `prestart_ray`; it returns at once.

    It does nothing if the machine has a GPU, which a process sees as its actor begins, or too little memory.

    Args:
        count: number of training workers.
        cpus_per_worker: processors that each of them reserves.
    """
    # Here: imports of two threads may see each other's half-imported modules.
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import common_pb2, node_manager_pb2, node_manager_pb2_grpc, runtime_environment_pb2
    from ray.train.v2._internal import constants

    controller = {
        constants.RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR: (
            constants.DEFAULT_RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_VALUE
        ),
        **constants.get_env_vars_to_propagate(),
    }
    workers = controller | worker_environment(cpus_per_worker)["env_vars"]
    # As Ray writes them: in Python for the driver's actor, in C++ for what inherits from the controller.
    of_controller = json.dumps({"env_vars": controller}, sort_keys=True)
    of_workers = json.dumps({"env_vars": workers}, sort_keys=True, separators=(",", ":"))

    def start() -> None:
        resources = ray.cluster_resources()
        fitting = min(count, int(resources.get("CPU", 0) // cpus_per_worker))
        room = available_memory() - RAY_BYTES
        if resources.get("GPU") or room < fitting * WORKER_BYTES:
            return
        node = ray._private.worker._global_node
        with init_grpc_channel(f"{node.node_ip_address}:{node.node_manager_port}") as channel:
            raylet = node_manager_pb2_grpc.NodeManagerServiceStub(channel)
            # Ray starts as many processes at a time as it has CPUs, and counts the first of a kind for those that wait.
            for environment, number in ((of_workers, fitting), (of_controller, 1)):
                request = node_manager_pb2.PrestartWorkersRequest(
                    language=common_pb2.Language.PYTHON,
                    runtime_env_info=runtime_environment_pb2.RuntimeEnvInfo(
                        serialized_runtime_env=environment,
                        runtime_env_config=runtime_environment_pb2.RuntimeEnvConfig(
                            setup_timeout_seconds=SETUP_SECONDS
                        ),
                    ),
                    keep_alive_duration_secs=KEPT_SECONDS,
                    num_workers=number,
                )
                raylet.PrestartWorkers(request, timeout=ANSWER_SECONDS)

    return start
