"""Ray on one machine: who can reach it, and where its sockets are."""

import ipaddress
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import ray
from ray._private.utils import check_version_info

from data_schemas.errors import EnvironmentProblem
from infra.workers import ray_address, ray_session
from infra.workers.ray_address import check_reachable
from infra.workers.ray_session import (
    SOCKET_IN_FOLDER,
    SOCKET_PATH_BYTES,
    check_cluster,
    ensure_ray,
    temporary_folder,
)

LISTENERS = """
import contextlib, os, psutil, ray
from infra.workers.ray_session import close_ray, dashboard_url, ensure_ray
from tests.processes import command_line
ensure_ray()
assert dashboard_url() is None
assert ray.get(ray.remote(lambda: os.getpid()).remote())
process = psutil.Process()
for child in (process, *process.children(recursive=True)):
    with contextlib.suppress(psutil.NoSuchProcess):
        for connection in child.net_connections("inet"):
            if connection.status == "LISTEN":
                print(connection.laddr.ip, child.name())
        scripts = [word for word in command_line(child) if word.endswith(".py")]
        assert not {"monitor.py", "log_monitor.py", "dashboard.py"} & {os.path.basename(name) for name in scripts}
close_ray()
"""


def test_sockets_get_a_short_path_if_the_users_folder_is_too_deep(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    longest = SOCKET_PATH_BYTES - len(SOCKET_IN_FOLDER)
    for folder, expected in (("", None), ("/" * longest, None), ("/" * (longest + 1), "/tmp/ray")):
        monkeypatch.setenv("TMPDIR", folder)
        assert temporary_folder() == expected


def test_a_cluster_where_nobody_listens_is_refused_at_once(monkeypatch):
    """Ray itself tries for minutes; what is no host and port, or does not answer, is left to Ray."""
    monkeypatch.setattr(ray_address, "CONNECT_SECONDS", 0.5)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(OSError, match="refused"):
            check_reachable(address)
        listener.listen()
        for reachable in (address, "auto", "local", "ray://127.0.0.1:1"):
            check_reachable(reachable)


def test_ray_on_this_machine_is_refused_without_what_its_processes_need(monkeypatch, tmp_path):
    """Ray itself waits a minute for files of processes that have ended, or starts them again without end."""
    for name in ("RAY_ADDRESS", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ray_session, "task_limit", lambda: None)
    monkeypatch.setattr(ray_session.resource, "getrlimit", lambda kind: (ray_session.resource.RLIM_INFINITY,) * 2)
    check_cluster()

    def refused(expected: str) -> None:
        with pytest.raises(EnvironmentProblem, match=expected):
            check_cluster()

    with monkeypatch.context() as patch:
        patch.setenv("TMPDIR", "/proc/sys")
        refused(r"/proc/sys: .* set TMPDIR to another folder")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        refused(r"in bash, .* --set execution\.engine=inline")
    with monkeypatch.context() as patch:
        patch.setattr(ray_session, "task_limit", lambda: 60)
        refused(r"and 60 are allowed; raise that \(docker run --pids-limit, ulimit -u\), or to work without Ray")
    with monkeypatch.context() as patch:
        patch.setattr(ray_session.resource, "getrlimit", lambda kind: (4_000_000_000, 4_000_000_000))
        refused(r"8 GB of addresses, and 4\.0 are allowed; raise that \(ulimit -v\)")
    monkeypatch.setattr(ray_session.resource, "getrlimit", lambda kind: (64, 64))
    refused(r"256 open files in a process, and 64 are allowed; raise that \(ulimit -n\)")


@pytest.mark.parametrize(
    ("token", "expected"), [("", "needs a token"), ("wrong", "refuses the token"), ("right", None)]
)
def test_a_cluster_with_another_token_is_one_sentence_at_once(monkeypatch, token, expected):
    """Ray itself repeats the question for twenty seconds, prints each answer, and then names no token."""

    class Head(grpc.GenericRpcHandler):
        def service(self, call):
            accepted = dict(call.invocation_metadata).get("authorization") == "Bearer right"
            assert call.method == "/ray.rpc.NodeInfoGcsService/GetClusterId"
            return grpc.unary_unary_rpc_method_handler(answer if accepted else refuse)

    def answer(data, context):
        return data

    def refuse(data, context):
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")

    monkeypatch.setattr(ray_address, "CONNECT_SECONDS", 120.0)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    monkeypatch.setattr(
        "ray._private.authentication.http_token_authentication.get_auth_headers_if_auth_enabled", lambda _: headers
    )
    with ThreadPoolExecutor(1) as pool:
        head = grpc.server(pool, [Head()])
        address = f"127.0.0.1:{head.add_insecure_port('127.0.0.1:0')}"
        head.start()
        monkeypatch.setenv("RAY_ADDRESS", address)
        try:
            for check in (lambda: check_reachable(address), check_cluster):
                if expected:
                    with pytest.raises(EnvironmentProblem, match=f"{address} {expected}: set RAY_AUTH_MODE=token"):
                        check()
                else:
                    check()
        finally:
            head.stop(None).wait()


def test_workers_do_not_look_for_modules_where_this_process_does_not(monkeypatch, tmp_path):
    """Ray adds the current folder, where a user's `infra` would take the place of ours."""
    monkeypatch.chdir(tmp_path)
    for searched, expected in (([], []), (["/usr/lib"], ["/usr/lib"]), (["", "/x"], [str(tmp_path)])):
        config = ray_session._job_config()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", searched)
            config._py_driver_sys_path.extend([str(tmp_path), "/usr/lib"])
        assert config._py_driver_sys_path == expected


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


def test_a_cluster_of_another_version_is_one_sentence(monkeypatch):
    theirs = {"python_version": "3.9.18", "ray_version": "2.9.3"}

    def init(**settings):
        check_version_info(theirs, "node 10.0.0.1")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(
        EnvironmentProblem, match=r"Ray: 2\.9\.3 Python: 3\.9\.18 .*; install the same versions"
    ) as error:
        ensure_ray()
    assert "\n" not in str(error.value) and "RAY_AUTH" not in str(error.value)
