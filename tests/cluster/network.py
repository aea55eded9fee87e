"""A Ray cluster of several machines on one: each node has its own network, address, processes and `/tmp`.

- `why_not`: why this machine cannot have one
- `Cluster`: nodes on a switch; `start_node`, `Node.kill` (power failure), `Node.cut_off` (network failure)
- `Driver`: a process on the head that calls functions of the tests

Every node is a process of `unshare` with namespaces of its own, connected by a veth pair with a bridge, which has a
network namespace too. The machine's own network is never changed, and nothing has a name outside the namespaces: if the
test is killed, the kernel ends all processes and removes interfaces and mounts.
"""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from tests.processes import children, wait_for

ROOT = Path(__file__).resolve().parents[2]
PORT = 6379
HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}
"""A node that is silent for about ten seconds is dead. Ray's own: docs/operations.md."""
ISOLATED = ("unshare", "--net", "--uts", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
MORTAL = ("setpriv", "--pdeathsig", "KILL")
"""Ends a command with the process that started it, however that one ends."""
BOOT = r"""
set -e
mount -t tmpfs tmpfs /dev/shm; mkdir -p /tmp/ray; mount -t tmpfs tmpfs /tmp/ray
hostname "$0"; ip link set lo up
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$0" > /tmp/ray/hosts; mount --bind /tmp/ray/hosts /etc/hosts
: > /tmp/ray/resolv; mount --bind /tmp/ray/resolv /etc/resolv.conf
echo ready; exec sleep infinity
"""
"""First process of a machine. Its name means a loopback address, as Debian's installer writes it; it has no DNS."""


def why_not() -> str | None:
    """Why this machine cannot have such a cluster; None if it can."""
    missing = [command for command in ("ip", "unshare", "nsenter", "setpriv") if not shutil.which(command)]
    if missing:
        return f"no {' and no '.join(missing)} (Debian: iproute2, util-linux)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    probe = [*ISOLATED, "sh", "-ec", "mount -t tmpfs tmpfs /dev/shm; ip link add veth1 type veth peer name veth2; "
             "ip link add bridge type bridge"]  # fmt: skip
    tried = subprocess.run(probe, capture_output=True, text=True, check=False)
    return f"namespaces are forbidden here: {tried.stderr.strip()}" if tried.returncode else None


def in_namespaces(pid: int) -> list[str]:
    """Beginning of a command that enters the namespaces of a machine."""
    return [*MORTAL, "nsenter", f"--target={pid}", "--net", "--uts", "--mount", "--ipc", "--pid"]


@dataclass
class Machine:
    """Namespaces of one machine, which live as long as its first process."""

    name: str
    parent: subprocess.Popen[str] = field(init=False)
    pid: int = field(init=False)

    def __post_init__(self) -> None:
        command = [*MORTAL, *ISOLATED, "sh", "-c", BOOT, self.name]
        self.parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.parent.stdout and self.parent.stdout.readline() == "ready\n", f"{self.name} did not start"
        self.pid = children(self.parent.pid)[0].pid

    def configure(self, command: str) -> None:
        """Run a shell command in the machine's network."""
        enter = ["nsenter", f"--target={self.pid}", "--net", "sh", "-ec", command]
        subprocess.run(enter, check=True, stdin=subprocess.DEVNULL)

    def end(self) -> None:
        """End all its processes at once."""
        self.parent.kill()
        self.parent.wait()


@dataclass
class Node:
    """A machine with a raylet."""

    number: int
    machine: Machine
    switch: Machine
    raylet: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """Its address in the cluster's network."""
        return _address(self.number)

    def kill(self) -> None:
        """End all processes of the node."""
        self.machine.end()
        self.raylet.wait()

    def cut_off(self) -> None:
        """Let no more packets through, while its processes run on."""
        self.switch.configure(f"ip link set port{self.number} down")

    def reconnect(self) -> None:
        """Let packets through again."""
        self.switch.configure(f"ip link set port{self.number} up")


class Cluster:
    """Nodes in one network; node 1 is the head, which has no CPUs."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "HEADRACE_"))},
            **HEALTH_CHECKS,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ADDRESS": f"{_address(1)}:{PORT}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_grpc_client_keepalive_time_ms": "5000",
            "RAY_grpc_client_keepalive_timeout_ms": "5000",
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",
            **environment,
        }
        self.switch = Machine("switch")
        self.switch.configure(
            "ip link add bridge type bridge; ip link set bridge up; ip addr add 10.77.0.254/24 dev bridge"
        )
        self.nodes: list[Node] = []
        self._count = 0

    def start_node(self, cpus: int, **resources: float) -> Node:
        """Connect one more machine and start Ray on it; returns before it has joined."""
        self._count += 1
        number, machine = self._count, Machine(f"node{self._count}")
        self.switch.configure(
            f"ip link add port{number} type veth peer name eth0 netns {machine.pid}; "
            f"ip link set port{number} master bridge; ip link set port{number} up"
        )
        machine.configure(
            f"ip addr add {_address(number)}/24 dev eth0; ip link set eth0 up; ip route add default via 10.77.0.254"
        )
        options = ["--head", f"--port={PORT}", "--include-dashboard=false"] if number == 1 else []
        options += [] if number == 1 else [f"--address={_address(1)}:{PORT}"]
        command = [
            *in_namespaces(machine.pid), sys.executable, "-m", "ray.scripts.scripts", "start", "--block",
            f"--node-ip-address={_address(number)}", f"--num-cpus={cpus}", f"--object-store-memory={80 * 2**20}",
            f"--memory={2 * 2**30}", "--include-log-monitor=false", "--num-gpus=0", *options,
        ]  # fmt: skip
        log = (self.folder / f"node{number}.log").open("wb")
        environment = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        raylet = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        node = Node(number, machine, self.switch, raylet)
        self.nodes.append(node)
        return node

    def wait_for_head(self) -> None:
        """Wait until the head listens."""
        log = self.folder / "node1.log"
        wait_for(lambda: b"--block" in log.read_bytes() or self.nodes[0].raylet.poll() is not None)
        assert self.nodes[0].raylet.poll() is None, log.read_text()

    def close(self) -> None:
        """End all machines."""
        for node in self.nodes:
            node.kill()
        self.switch.end()


class Driver:
    """A process on the head of a cluster, connected to Ray, that calls functions one after another."""

    def __init__(self, cluster: Cluster) -> None:
        path = str(cluster.folder / "driver.socket")
        with Listener(path, "AF_UNIX") as listener:
            command = [*in_namespaces(cluster.nodes[0].machine.pid), sys.executable, "-m", __name__, path]
            with (cluster.folder / "driver.log").open("wb") as log:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=cluster.environment, cwd=ROOT
                )
            self._connection: Connection = listener.accept()
        self._thread = ThreadPoolExecutor(1)
        """Ends with the process, which ends with the head."""

    def start(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Call a module-level function in the driver; the result or exception is the future's."""
        return self._thread.submit(self._call, function, *arguments)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function and wait for its result."""
        return self.start(function, *arguments).result()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._connection.send((function, arguments))
        result = self._connection.recv()
        if isinstance(result, BaseException):
            raise result
        return result


def _address(number: int) -> str:
    return f"10.77.0.{number}"


def _serve(path: str) -> None:
    import pickle
    from multiprocessing.connection import Client

    with Client(path, "AF_UNIX") as connection:
        while True:
            try:
                function, arguments = connection.recv()
            except EOFError:
                return
            try:
                result = function(*arguments)
            except BaseException as error:
                result = error
                try:
                    pickle.loads(pickle.dumps(error))
                except Exception:
                    result = RuntimeError(f"{type(error).__name__}: {error}")
            connection.send(result)


if __name__ == "__main__":
    _serve(sys.argv[1])
