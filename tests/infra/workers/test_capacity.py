"""Partitions at once, as estimates count them."""

import pytest
import ray

from infra.workers import capacity
from infra.workers.capacity import Capacity, capacity_of


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(capacity, "cpu_count", lambda: 8)


def test_without_a_cluster_the_cores_of_this_machine_count():
    assert capacity_of("inline", 5) == Capacity(1, 1)
    assert capacity_of("processes") == capacity_of("ray") == Capacity(8, 8)
    assert capacity_of("processes", 3) == capacity_of("ray", 3) == Capacity(3, 3)


def test_a_cluster_counts_and_not_the_machine_that_plans(monkeypatch):
    nodes = [{"Alive": alive, "Resources": {"CPU": cpus} if cpus else {}} for cpus, alive in
             [(0, True), (64, True), (32, True), (96, False)]]  # fmt: skip
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(capacity, "ensure_ray", lambda: None)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert capacity_of("ray") == Capacity(96, 64)
    assert capacity_of("ray", cpus=3) == Capacity(31, 21)
    assert capacity_of("ray", 40) == Capacity(40, 40)
    assert capacity_of("ray", 999) == Capacity(96, 64)
    assert capacity_of("processes") == Capacity(8, 8), "partitions stay on the machine of the command"
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    assert capacity_of("ray") == Capacity(8, 8), "jobs are submitted there, and plan again"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    nodes.clear()
    assert capacity_of("ray") == Capacity(1, 1), "an autoscaler may start nodes"
