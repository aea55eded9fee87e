"""Partitions in flight follow the cluster, and what starts them waits for none of them."""

import os
import signal
from concurrent.futures import Future
from pathlib import Path

import pytest

from data_schemas.errors import EnvironmentProblem
from infra.workers.in_flight import run_in_flight
from infra.workers.ray_partitions import ASK_SECONDS, START_NODE_SECONDS, ClusterRoom, TaskNeeds, _fitting, run_on_ray
from infra.workers.ray_session import close_ray


def test_calls_in_flight_follow_a_limit_that_grows_and_shrinks(monkeypatch):
    """Calls end when the test says so, and only when no more can start: nothing that starts them waits for one."""
    monkeypatch.setattr("infra.workers.in_flight.POLL_SECONDS", 0.001)
    waiting: list[Future[int]] = []
    most: dict[int, int] = {}
    ended: list[int] = []

    def size() -> int:
        return 64 if len(ended) < 50 else 100 if len(ended) < 150 else 10

    def limit() -> int:
        if len(waiting) >= size() or len(ended) + len(waiting) == 300:
            waiting.pop(0).set_result(0)
        return size()

    def start(number: int) -> Future[int]:
        waiting.append(Future())
        most[size()] = max(most.get(size(), 0), len(waiting))
        return waiting[-1]

    for number, _ in run_in_flight(300, start, limit):
        ended.append(number)
    assert ended == list(range(300))
    assert most == {64: 64, 100: 100, 10: 10}


def node(cpus: float = 0, gigabytes: float = 8, alive: bool = True) -> dict:
    return {"Alive": alive, "Resources": {"CPU": cpus, "memory": gigabytes * 1e9}}


def test_room_is_that_of_the_living_nodes_as_they_are_now():
    nodes, now = [node(0), node(64, 512), node(64, 10), node(64, 512, alive=False)], 0.0
    room = ClusterRoom(TaskNeeds(cpus=2, memory_bytes=1_000_000_000), None, lambda: nodes, lambda: now)
    assert room.in_flight() == 2 * (32 + 10), "10 tasks have memory on the second node"
    nodes.append(node(8, 512))
    assert room.in_flight() == 2 * 42, "not asked again within a second"
    now += ASK_SECONDS
    assert room.in_flight() == 2 * 46
    del nodes[1]
    now += ASK_SECONDS
    assert room.in_flight() == 2 * 14
    limited = ClusterRoom(TaskNeeds(), 5, lambda: nodes, lambda: now)
    assert limited.in_flight() == 5


def test_a_cluster_without_room_gets_one_task_to_grow_for_and_is_given_up_after_a_while():
    nodes, now = [node(0, 8), node(1, 8)], 100.0
    room = ClusterRoom(TaskNeeds(cpus=4), None, lambda: nodes, lambda: now)
    assert room.in_flight() == 1
    now += START_NODE_SECONDS - 1
    assert room.in_flight() == 1
    nodes.append(node(4, 8))
    now += ASK_SECONDS
    assert room.in_flight() == 2
    nodes.pop()
    for later in (ASK_SECONDS, START_NODE_SECONDS - 1):
        now += later
        assert room.in_flight() == 1
    now += 1
    with pytest.raises(EnvironmentProblem, match=r"needs 4 CPU .*the largest has 1 CPU .*cpus_per_partition"):
        room.in_flight()


def test_an_estimate_of_memory_never_keeps_a_partition_from_the_largest_node():
    nodes = [{"CPU": 4.0, "memory": 2e9}, {"CPU": 1.0, "memory": 9e9}, {"memory": 64e9}]
    assert _fitting(TaskNeeds(1, 10**12), nodes).memory_bytes == 9_000_000_000
    assert _fitting(TaskNeeds(2, 10**12), nodes).memory_bytes == 2_000_000_000
    assert _fitting(TaskNeeds(1, 10**9), nodes).memory_bytes == 10**9
    assert _fitting(TaskNeeds(8, 10**12), nodes).memory_bytes == 10**12, "no node has the CPUs: it waits for one"


def crash(payload: tuple[str, int]) -> None:
    folder, times = payload
    Path(folder, str(os.getpid())).touch()
    if len(list(Path(folder).iterdir())) <= times:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_partition_that_kills_its_process_again_and_again_is_named(tmp_path):
    rare, often = tmp_path / "rare", tmp_path / "often"
    rare.mkdir()
    often.mkdir()
    try:
        assert list(run_on_ray(crash, ["a"], [(str(rare), 2)], TaskNeeds(retries=2), None)) == [("a", None)]
        with pytest.raises(
            EnvironmentProblem, match=r"partition b did not end: its process or node was lost in every try"
        ):
            list(run_on_ray(crash, ["b"], [(str(often), 99)], TaskNeeds(retries=2), None))
        assert len(list(often.iterdir())) == 3
    finally:
        close_ray()
