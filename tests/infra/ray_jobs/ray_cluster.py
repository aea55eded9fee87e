"""A Ray cluster of one node with dashboard and token, in processes of its own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

START_SECONDS = 120.0


@dataclass
class RayCluster:
    """Address and environment of the cluster."""

    port: int
    dashboard_port: int
    token: str = field(default_factory=lambda: secrets.token_hex(32))

    @property
    def dashboard(self) -> str:
        """URL of the dashboard."""
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment of nodes and clients."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PREFECT_API"))}
        return {**own, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def ray_cluster(cpus: int = 4) -> Iterator[RayCluster]:
    """Start the cluster, and end all of its processes after the block."""
    port, dashboard, *others = _free_ports(7)
    cluster = RayCluster(port, dashboard)
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short: it holds Unix sockets
    names = (
        "--ray-client-server-port", "--dashboard-agent-listen-port", "--dashboard-agent-grpc-port",
        "--metrics-export-port", "--runtime-env-agent-port",
    )  # fmt: skip
    options = {
        "--port": port, "--dashboard-port": dashboard, "--dashboard-host": "127.0.0.1", "--num-cpus": cpus,
        "--object-store-memory": 150_000_000, "--temp-dir": folder, **dict(zip(names, others, strict=True)),
    }  # fmt: skip
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--head", "--block"]
    command += [f"{name}={value}" for name, value in options.items()]
    with open(f"{folder}/start.log", "wb") as log:  # noqa: PTH123
        started = subprocess.Popen(
            command, env=cluster.environment, stdout=log, stderr=log, start_new_session=True, cwd=folder
        )
    try:
        _wait_until_it_answers(cluster, started, f"{folder}/start.log")
        yield cluster
    finally:
        started.send_signal(signal.SIGTERM)  # ends all nodes of the cluster
        try:
            started.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_it_answers(cluster: RayCluster, started: subprocess.Popen[bytes], log: str) -> None:
    headers = {"Authorization": f"Bearer {cluster.token}"}
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(f"{cluster.dashboard}/api/version", headers=headers)).close()
            return
        except OSError:
            with open(log) as file:  # noqa: PTH123
                assert started.poll() is None and time.monotonic() < deadline, file.read()
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
