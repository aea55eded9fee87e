"""The code and versions on a cluster's nodes, which have to be those of the submitter.

- `own_versions`: versions here; `check_versions`: refuses others; `check_nodes`: asks every node that is alive
- `versions_for_nodes`, `check_this_node`: the same for nodes that join later, when they receive their first work
"""

import functools
import hashlib
import os
import platform
import socket
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from data_schemas.errors import EnvironmentProblem
from infra.store.provenance import headrace_version

PACKAGES = ("flows", "stages", "modeling", "infra", "data_schemas")
NODE_SECONDS = 120.0
"""Time in which all nodes have to answer; a node starts a worker process for it."""


def own_versions() -> dict[str, str]:
    """Versions of what runs here: Headrace with a digest of its code, Python, Ray."""
    return {
        "Headrace": f"{headrace_version()} (code {code_digest()[:12]})",
        "Python": platform.python_version(),
        "Ray": metadata.version("ray"),
    }


@functools.cache
def code_digest() -> str:
    """sha256 over the Python files of Headrace; a version number alone says little about a checkout."""
    root, digest = Path(__file__).resolve().parents[2], hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(root)} {content}\n".encode())
    return digest.hexdigest()


def check_versions(expected: Mapping[str, str], found: Mapping[str, str], node: str, here: str) -> None:
    """Refuse a node with another Headrace, Python or Ray.

    Raises:
        EnvironmentProblem: naming both versions.
    """
    for name, version in expected.items():
        if found.get(name) != version:
            raise EnvironmentProblem(
                f"node {node} has {name} {found.get(name, 'none')}, and {here} has {name} {version}: install the same "
                "on all nodes, or for Headrace set execution.working_dir to a checkout whose code is uploaded"
            )


def check_nodes() -> None:
    """Refuse to work on a cluster with a node whose code or versions differ from those here.

    Raises:
        EnvironmentProblem: naming the node and both versions.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    answers = {}
    for node in ray.nodes():
        if node["Alive"]:
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ask = ray.remote(own_versions).options(num_cpus=0, scheduling_strategy=strategy, max_retries=2)
            answers[ask.remote()] = node["NodeManagerAddress"]
    expected, here = own_versions(), socket.gethostname()
    for answer, node in answers.items():
        try:
            found = ray.get(answer, timeout=NODE_SECONDS)
        except ray.exceptions.RayTaskError as error:
            raise EnvironmentProblem(f"node {node} {cannot_import(error.cause)}") from None
        except ray.exceptions.RayError:
            continue  # the node left, or has no room for another process: it executes nothing either
        check_versions(expected, found, node, here)


def versions_for_nodes() -> dict[str, str] | None:
    """The versions that nodes need, to be sent with their work; None on a Ray of this machine, which has this code."""
    return own_versions() if os.environ.get("RAY_ADDRESS", "local") != "local" else None


def check_this_node(expected: Mapping[str, str] | None) -> None:
    """Refuse, in a worker process, to work for a driver with other code or versions.

    Raises:
        EnvironmentProblem: naming this node and both versions.
    """
    if expected is not None and expected != own_versions():
        import ray

        check_versions(expected, own_versions(), ray.util.get_node_ip_address(), "the driver")


def cannot_import(error: object) -> str:
    """The end of a sentence about a node without Headrace; of a traceback, its last line is the reason."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return (
        f"cannot import Headrace ({reason}): install it there, or set execution.working_dir to a checkout whose code "
        "is uploaded"
    )
