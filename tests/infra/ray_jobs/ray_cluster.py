"""A Ray cluster with dashboard and token, in processes of its own, which a test may lose one by one.

- `ray_cluster`: context with a head; `RayCluster`: its addresses, more nodes, processes to kill, a new head
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil

from tests.processes import children, command_line, descendants, free_ports, living, wait_for, working


@dataclass
class RayCluster:
    """Address and environment of the cluster, and its nodes."""

    cpus: int = 4
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    folder: str = field(default_factory=lambda: tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    """Short: it holds Unix sockets."""
    nodes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    """`ray start --block` of each node, the head's first."""
    restarted: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.port, self.dashboard_port = free_ports(2)

    @property
    def dashboard(self) -> str:
        """URL of the dashboard."""
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment of nodes and clients."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PREFECT_API"))}
        return {**own, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_USAGE_STATS_ENABLED": "0"}

    def start_head(self) -> None:
        """Start a head, at the addresses of an earlier one, and wait until it answers."""
        log = self._start(
            f"--head --port={self.port} --dashboard-port={self.dashboard_port} --dashboard-host=127.0.0.1 "
            f"--ray-client-server-port={free_ports(1)[0]} --num-cpus={self.cpus} --temp-dir={self.folder}"
        )
        wait_for(lambda: self.answer("/api/version") is not None or self.nodes[-1].poll() is not None)
        assert self.nodes[-1].poll() is None, Path(log).read_text()

    def start_node(self, options: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start one more node; returns before it has joined."""
        self._start(f"--address=127.0.0.1:{self.port} {options}", **environment)
        return self.nodes[-1]

    def _start(self, options: str, **environment: str) -> str:
        names = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
        ports = [f"--{name}-port={port}" for name, port in zip(names, free_ports(len(names)), strict=True)]
        command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block"]
        command += [*options.split(), *ports, "--object-store-memory=150000000"]
        path = f"{self.folder}/start{len(self.nodes)}.log"
        with open(path, "wb") as log:  # noqa: PTH123
            started = subprocess.Popen(
                command, env=self.environment | environment, stdout=log, stderr=log, start_new_session=True,
                cwd=self.folder,
            )  # fmt: skip
        self.nodes.append(started)
        return path

    def answer(self, path: str) -> Any:
        """Answer of the dashboard; None if it does not answer or knows no such thing."""
        headers = {"Authorization": f"Bearer {self.token}"}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.dashboard + path, headers=headers), timeout=10
            ) as response:
                return json.loads(response.read())
        except (OSError, HTTPException, json.JSONDecodeError):
            return None

    def job_status(self, submission_id: str) -> str | None:
        """Status of a job; None if the dashboard does not answer or does not know it."""
        details = self.answer(f"/api/jobs/{submission_id}")
        return details and str(details["status"])

    def process(self, node: "subprocess.Popen[bytes]", program: str) -> psutil.Process:
        """The process of a node whose program ends with a name."""

        def found() -> list[psutil.Process]:
            return working(node.pid, lambda command: any(part.endswith(program) for part in command[:3]))

        wait_for(found)
        [process] = found()
        return process

    def restart_dashboard(self) -> None:
        """Start the dashboard again as it was started; it must have been killed by `kill_dashboard`."""
        command, environment = self._dashboard
        self.restarted.append(
            subprocess.Popen(
                command, env=environment, cwd=self.folder, start_new_session=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip

    def kill_dashboard(self) -> None:
        """Kill the dashboard of the head alone; `ray start --block` would end the head with it, and is paused."""
        self.nodes[0].send_signal(signal.SIGSTOP)
        process = self.process(self.nodes[0], "dashboard.py")
        self._dashboard = process.cmdline(), process.environ()
        _kill([*descendants(process.pid), process])

    def kill_head(self) -> None:
        """Kill the head's own processes at once; what works for jobs there has to end by itself."""
        head = self.nodes[0].pid
        agents = ("ray::Dash", "ray::Runt")
        own = [child for child in descendants(head) if " ".join(command_line(child)).startswith(agents)]
        assert len(own) >= len(agents), "Ray has given its agents other names"
        own += [child for one in self.restarted for child in descendants(one.pid)]
        _kill([*living([head]), *children(head), *own, *living(one.pid for one in self.restarted)])
        for started in [self.nodes.pop(0), *self.restarted]:
            started.wait()
        self.restarted.clear()

    def close(self) -> None:
        """End all processes of all nodes."""
        families = []
        for started in [*self.nodes, *self.restarted]:
            families += descendants(started.pid)
            with suppress(ProcessLookupError):
                started.send_signal(signal.SIGTERM)  # ends all processes of the node
                started.send_signal(signal.SIGCONT)
        for started in [*self.nodes, *self.restarted]:
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
        _kill(families)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def ray_cluster(cpus: int = 4, **settings: Any) -> Iterator[RayCluster]:
    """Start the cluster, and end all of its processes after the block."""
    cluster = RayCluster(cpus, **settings)
    try:
        cluster.start_head()
        yield cluster
    finally:
        cluster.close()


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
