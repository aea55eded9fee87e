"""Partitions as tasks of a Ray cluster, of which nodes join and fail while they run.

- `TaskNeeds`: resources that a task reserves on its node, and its retries
- `ClusterRoom`: tasks that have room on the nodes, as they are now
- `run_on_ray`: runs partitions; a task whose node or process is lost runs again elsewhere
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_schemas.errors import EnvironmentProblem
from infra.workers.in_flight import run_in_flight
from infra.workers.nodes import cannot_import, check_this_node, versions_for_nodes

QUEUED = 2
"""Tasks in flight for each that has room: the next one is at its node when a task ends."""
ASK_SECONDS = 1.0
"""Between two looks at the cluster's nodes."""
NOT_IMPORTED = "failed to import on the worker"
"""In Ray's message about a node without the module of a task's function."""
START_NODE_SECONDS = 600.0
"""Patience with a cluster without a node for a task: an autoscaler may be starting one."""


@dataclass(frozen=True)
class TaskNeeds:
    """Resources that a task reserves on its node, and its retries."""

    cpus: float = 1.0
    memory_bytes: int = 0
    retries: int = 3
    """Tries after the first, if the task's node or process is lost; an error of the function is not tried again."""

    def room(self, resources: Mapping[str, float]) -> int:
        """Tasks that a node with these resources has room for."""
        by_memory = resources.get("memory", 0.0) / self.memory_bytes if self.memory_bytes else math.inf
        return int(min(resources.get("CPU", 0.0) / self.cpus, by_memory))


@dataclass
class ClusterRoom:
    """Tasks that have room on the nodes of the cluster that this process is connected to, as they are now."""

    needs: TaskNeeds
    limit: int | None = None
    """Most tasks to run at once; by default as many as have room."""
    nodes: Callable[[], Iterable[Mapping[str, Any]]] = field(default_factory=lambda: _nodes)
    clock: Callable[[], float] = time.monotonic
    _looked: float = -math.inf
    _room: int = 0
    _empty_since: float | None = None

    def in_flight(self) -> int:
        """Tasks to have in flight; at least one, for which an autoscaler starts a node.

        Raises:
            EnvironmentProblem: if no node has had room for one for `START_NODE_SECONDS`.
        """
        now = self.clock()
        if now >= self._looked + ASK_SECONDS:
            nodes = [node["Resources"] for node in self.nodes() if node["Alive"]]
            self._looked, self._room = now, sum(map(self.needs.room, nodes))
            self._empty_since = None if self._room else self._empty_since or now
            if self._empty_since is not None and now - self._empty_since >= START_NODE_SECONDS:
                raise EnvironmentProblem(self._too_small(nodes))
        return max(1, QUEUED * self._room if self.limit is None else min(self.limit, QUEUED * self._room))

    def _too_small(self, nodes: Sequence[Mapping[str, float]]) -> str:
        largest = max(nodes, key=lambda node: (node.get("CPU", 0.0), node.get("memory", 0.0)), default={})
        found = f"{largest.get('CPU', 0):g} CPU and {largest.get('memory', 0) / 1e9:.2g} GB"
        return (
            f"a partition needs {self.needs.cpus:g} CPU and {self.needs.memory_bytes / 1e9:.2g} GB of memory, and no "
            f"node of the Ray cluster has had them for {START_NODE_SECONDS:g} s (the largest has {found}); start a "
            "larger node, or lower execution.cpus_per_partition or execution.memory_per_partition"
        )


def run_on_ray(
    function: Callable[[Any], Any], names: Sequence[str], payloads: Sequence[Any], needs: TaskNeeds, limit: int | None
) -> Iterator[tuple[str, Any]]:
    """Call a function for each payload on the cluster; yields names and results as they come.

    Args:
        function: picklable; sent to each node once and deserialized by each of its processes once.
        names: name of each payload, for errors.
        payloads: argument of each call.
        needs: resources of a call.
        limit: most calls at once; by default as many as have room.

    Raises:
        EnvironmentProblem: if a task's processes were lost more often than `needs.retries`, no node has room, or one
            that joined the cluster has other code or versions.
        Exception: raised by the function.
    """
    import ray

    from infra.workers.ray_session import ensure_ray

    ensure_ray()
    needs = _fitting(needs, [node["Resources"] for node in ray.nodes() if node["Alive"]])
    # In a list: Ray would deserialize an argument for every task.
    shared = [ray.put(function), versions_for_nodes()]
    options = {"num_cpus": needs.cpus, "memory": needs.memory_bytes or None, "max_retries": needs.retries}
    submit = ray.remote(_call).options(**options).remote
    references: dict[str, Any] = {}

    def start(index: int) -> Any:
        references[names[index]] = reference = submit(shared, payloads[index])
        return reference.future()  # an error that a signal raises inside `ray.wait` becomes a SystemError

    room = ClusterRoom(needs, limit)
    try:
        for index, future in run_in_flight(len(names), start, room.in_flight):
            result = _result(future, names[index])
            del references[names[index]]
            yield names[index], result
    finally:
        for reference in references.values():  # none unless a partition failed, or after a timeout or an interrupt
            ray.cancel(reference, force=True)


def _fitting(needs: TaskNeeds, nodes: Sequence[Mapping[str, float]]) -> TaskNeeds:
    """Needs with no more memory than the largest node has: what a task needs is an estimate, and it may fit there."""
    largest = max((node.get("memory", 0.0) for node in nodes if node.get("CPU", 0.0) >= needs.cpus), default=0.0)
    if not largest or needs.memory_bytes <= largest:
        return needs
    return TaskNeeds(needs.cpus, int(largest), needs.retries)


def _result(future: Any, name: str) -> Any:
    """The result of a task, or its error: the cause that the function raised, or one sentence for a lost task."""
    import ray

    try:
        return future.result()
    except ray.exceptions.RayTaskError as error:
        if NOT_IMPORTED in str(error.cause):
            raise EnvironmentProblem(
                f"partition {name}: a node of the Ray cluster {cannot_import(error.cause)}"
            ) from None
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise EnvironmentProblem(
            f"partition {name} did not end: its process or node was lost in every try, at last because {reason}; what "
            "is finished is kept: start more reliable or larger nodes, or raise execution.partition_retries or "
            "execution.memory_per_partition, and run again"
        ) from error


_received: dict[str, Callable[[Any], Any]] = {}
"""The function that this worker process calls, by its reference."""


def _call(shared: list[Any], payload: Any) -> Any:
    import ray

    name = shared[0].hex()
    if name not in _received:
        check_this_node(shared[1])
        _received.clear()
        _received[name] = ray.get(shared[0])
    return _received[name](payload)


def _nodes() -> Iterable[Mapping[str, Any]]:
    import ray

    nodes: list[Mapping[str, Any]] = ray.nodes()
    return nodes
