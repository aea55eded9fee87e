"""Ray on one machine: who can reach it, and where its sockets are."""

import ipaddress
import os
import socket
import subprocess
import sys

import pytest
import ray

from data_schemas.errors import EnvironmentProblem
from infra.workers.ray_session import (
    SOCKET_IN_FOLDER,
    SOCKET_PATH_BYTES,
    check_reachable,
    ensure_ray,
    temporary_folder,
)

LISTENERS = """
import os, psutil, ray
from infra.workers.ray_session import close_ray, ensure_ray
ensure_ray()
assert ray.get(ray.remote(lambda: os.getpid()).remote())
process = psutil.Process()
for child in (process, *process.children(recursive=True)):
    for connection in child.net_connections("inet"):
        if connection.status == "LISTEN":
            print(connection.laddr.ip, child.name())
close_ray()
"""


def test_sockets_get_a_short_path_if_the_users_folder_is_too_deep(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    longest = SOCKET_PATH_BYTES - len(SOCKET_IN_FOLDER)
    for folder, expected in (("", None), ("/" * longest, None), ("/" * (longest + 1), "/tmp/ray")):
        monkeypatch.setenv("TMPDIR", folder)
        assert temporary_folder() == expected


def test_a_cluster_where_nobody_listens_is_refused_at_once():
    """Ray itself tries for minutes; what is no host and port is left to Ray."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(OSError, match="refused"):
            check_reachable(address)
        listener.listen()
        for reachable in (address, "auto", "local", "ray://127.0.0.1:1"):
            check_reachable(reachable)


@pytest.mark.slow
def test_ray_on_this_machine_listens_on_loopback_only_and_starts_in_a_deep_temporary_folder(tmp_path):
    deep = tmp_path / ("deep" * 20)
    deep.mkdir()
    environment = {**os.environ, "TMPDIR": str(deep)}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-c", LISTENERS], capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    addresses = [line.split()[0] for line in done.stdout.splitlines()]
    assert len(addresses) >= 4, "GCS, raylet and agents listen"
    for address in map(ipaddress.ip_address, addresses):
        assert (getattr(address, "ipv4_mapped", None) or address).is_loopback, done.stdout


def test_a_start_that_fails_in_any_way_is_one_sentence(monkeypatch):
    def fail(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(EnvironmentProblem, match=r"cannot start Ray on this machine: The current node timed out"):
        ensure_ray()
