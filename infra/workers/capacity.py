"""Room on this machine or on the cluster at `RAY_ADDRESS`.

- `capacity_of`: partitions that run at once with a config, for estimates
- `room_problem`: the error for more training workers than there is room for
"""

import os
from dataclasses import dataclass
from math import floor
from typing import Literal

from data_schemas.errors import EnvironmentProblem
from infra.control_groups import cpu_count
from infra.workers.ray_session import ensure_ray

Engine = Literal["inline", "processes", "ray"]


@dataclass(frozen=True)
class Capacity:
    """Partitions that run at once."""

    partitions: int = 1
    per_node: int = 1
    """On the node with the most; decides the memory of a node."""


def capacity_of(engine: Engine, workers: int | None = None, cpus: float = 1.0) -> Capacity:
    """Capacity of an engine; asks the cluster if partitions are its tasks and this machine is one of its nodes.

    A dashboard's URL is where jobs are submitted: the job plans again, on the cluster.

    Args:
        engine: what partitions run in.
        workers: the most partitions at once; by default one per core, or as many as the cluster has room for.
        cpus: CPUs that a partition reserves on Ray.

    Raises:
        EnvironmentProblem: if the cluster cannot be reached.
    """
    if engine == "inline":
        return Capacity()
    address = os.environ.get("RAY_ADDRESS", "local")
    if engine == "processes" or address == "local" or "://" in address:
        count = workers or cpu_count()
        return Capacity(count, count)
    ensure_ray()
    import ray

    rooms = [int(node["Resources"].get("CPU", 0.0) / cpus) for node in ray.nodes() if node["Alive"]]
    total, largest = max(1, sum(rooms)), max([1, *rooms])
    return Capacity(min(workers or total, total), min(workers or largest, largest))


def room_problem(
    stage: str, workers: int, cpus_per_worker: float, gpus: float, cpus: float
) -> EnvironmentProblem | None:
    """The error for workers that have no room: one GPU each if there are any, else CPUs; None if they have."""
    resource, available, each = ("GPU", gpus, 1.0) if gpus >= 1 else ("CPU", cpus, cpus_per_worker)
    if workers * each <= available:
        return None
    also = f", or {stage}.cpus_per_worker {floor(1_000 * available / workers) / 1_000:g}" if resource == "CPU" else ""
    return EnvironmentProblem(
        f"{stage}.workers is {workers} with {each:g} {resource} each, and the cluster has {available:g}; use "
        f"{int(available / each)} workers or fewer{also}"
    )
