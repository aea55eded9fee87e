"""Training workers that have no room are refused before anything starts."""

import json

import pytest
import ray

from data_schemas.errors import EnvironmentProblem
from infra import training_room
from infra.training_room import check_training_memory, check_training_room, status_may_grow, workers_at_once


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(training_room, "cpu_count", lambda: 8)


def test_training_workers_without_room_on_this_machine_are_refused(monkeypatch):
    monkeypatch.setattr(training_room, "local_gpus", tuple)
    check_training_room("pretrain", 8, 1.0)
    check_training_room("pretrain", 16, 0.5)
    with pytest.raises(
        EnvironmentProblem,
        match=r"workers is 9 with 1 CPU each, .* use 8 workers or fewer, or pretrain\.cpus_per_worker 0\.888$",
    ):
        check_training_room("pretrain", 9, 1.0)
    check_training_room("pretrain", 9, 0.888)
    monkeypatch.setattr(training_room, "local_gpus", lambda: ("gpu", "gpu"))
    check_training_room("pretrain", 2, 99.0)
    with pytest.raises(EnvironmentProblem, match=r"3 with 1 GPU each, and the cluster has 2; use 2 workers or fewer$"):
        check_training_room("pretrain", 3, 0.1)


def test_training_workers_without_memory_on_this_machine_are_refused(monkeypatch):
    monkeypatch.setattr(training_room, "local_gpus", tuple)
    monkeypatch.setattr(training_room, "total_memory", lambda: 4_000_000_000)
    check_training_memory("pretrain", 3_800_000_000)
    monkeypatch.setattr(training_room, "memory_limit", lambda: 4_000_000_000)
    with pytest.raises(
        EnvironmentProblem,
        match=r"^pretrain needs about 3\.9 GB .* this container has 4\.0 GB; .* --set pretrain\.workers=0 ",
    ):
        check_training_memory("pretrain", 3_900_000_000)
    monkeypatch.setattr(training_room, "local_gpus", lambda: ("gpu",))
    check_training_memory("pretrain", 10**15)
    monkeypatch.setattr(training_room, "local_gpus", tuple)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    check_training_memory("pretrain", 10**15)


def test_workers_that_share_a_processor_take_turns(monkeypatch):
    monkeypatch.setattr(training_room, "local_gpus", tuple)
    assert [workers_at_once(workers) for workers in (1, 8, 9)] == [1, 8, 8]
    monkeypatch.setattr(training_room, "local_gpus", lambda: ("gpu",) * 16)
    assert workers_at_once(16) == 16
    monkeypatch.setattr(training_room, "local_gpus", tuple)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert workers_at_once(16) == 16


@pytest.mark.parametrize("may_grow", [False, True])
def test_training_workers_without_room_on_a_cluster_are_refused_unless_it_may_grow(monkeypatch, may_grow):
    resources = {"CPU": 4.0}
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(training_room, "ensure_ray", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    monkeypatch.setattr(training_room, "cluster_may_grow", lambda: may_grow)
    check_training_room("pretrain", 4, 1.0)
    for gpus, found in (
        (0, "5 with 1 CPU each, and the cluster has 4"),
        (3, "5 with 1 GPU each, and the cluster has 3"),
    ):
        resources["GPU"] = gpus
        if may_grow:
            check_training_room("pretrain", 5, 1.0)
        else:
            with pytest.raises(EnvironmentProblem, match=found):
                check_training_room("pretrain", 5, 1.0)
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    check_training_room("pretrain", 999, 1.0)


def test_a_cluster_may_grow_if_its_autoscaler_has_types_to_start_or_says_nothing():
    def status(*types: str) -> bytes:
        return json.dumps({"autoscaler_report": {"active_nodes": dict.fromkeys(types, 1)}}).encode()

    node = "node_11632eeef20968740324879bf4d7c03f599b1b091b920d9bdd8343c9"
    assert not status_may_grow(status(node))
    assert not status_may_grow(status(node, node[:-1] + "0"))
    assert status_may_grow(status("head", "data")) and status_may_grow(status())
    assert all(status_may_grow(unknown) for unknown in (None, b"", b"{}", b"[]", b"{", b'{"autoscaler_report": null}'))
