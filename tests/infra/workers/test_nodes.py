"""Nodes with other code or versions, in a process that stands for a worker's."""

import pytest

from data_schemas.errors import EnvironmentProblem
from infra.workers import nodes, ray_partitions
from infra.workers.nodes import cannot_import, check_this_node, own_versions, versions_for_nodes


def test_a_process_whose_code_differs_from_the_drivers_receives_no_work(monkeypatch):
    expected = own_versions()
    monkeypatch.setattr(nodes, "own_versions", lambda: expected | {"Headrace": "0.1 (code 123456789abc)"})
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "10.0.0.7")
    monkeypatch.setattr("ray.get", pytest.fail)
    with pytest.raises(
        EnvironmentProblem, match=r"node 10\.0\.0\.7 has Headrace 0\.1 \(code 123456789abc\), and the dr"
    ) as no:
        ray_partitions._call([type("Reference", (), {"hex": lambda self: "00"})(), expected], None)
    assert f"has Headrace {expected['Headrace']}: install" in str(no.value)


def test_a_ray_of_this_machine_has_this_code(monkeypatch):
    """Also if it is edited while a run works."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert versions_for_nodes() is None
    check_this_node(None)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert versions_for_nodes() == own_versions()
    check_this_node(own_versions())


def test_a_node_without_headrace_is_named_by_the_last_line_of_its_error():
    error = RuntimeError(
        "The remote function failed to import on the worker.\nTraceback:\nModuleNotFoundError: No module\n"
    )
    assert cannot_import(error).startswith("cannot import Headrace (ModuleNotFoundError: No module): install it there")
