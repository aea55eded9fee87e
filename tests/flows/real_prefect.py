"""A Prefect server in processes of its own, on SQLite or PostgreSQL, prepared as the documentation says.

- `serve`: context with a server; `Server`: its commands, workers and flow runs
- `postgres`: context with a database in a folder of its own

`python -m tests.flows.real_prefect sqlite|postgres` counts the errors of a server with eight runs on four workers.
"""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.flows.mini import mini_values, write_corpus
from tests.flows.test_command_line import HEADRACE, answers
from tests.processes import WAIT_SECONDS, descendants, free_ports, living, wait_for

CHECKOUT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
ATTEMPTS = 10
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass
class Server:
    """A server with Headrace's deployments."""

    url: str
    folder: Path
    environment: dict[str, str]

    @property
    def log(self) -> str:
        """All that server and workers printed."""
        return "".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))

    def prefect(self, *arguments: str, expect: int = 0) -> str:
        """Output of a `prefect` command."""
        command = [str(SCRIPTS / "prefect"), *arguments]
        done = subprocess.run(
            command, env=self.environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=WAIT_SECONDS
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())

    def start(self, command: Sequence[str], log: str, **environment: str) -> subprocess.Popen[bytes]:
        """A process with its output in a log."""
        with (self.folder / f"{log}.log").open("w") as output:
            return subprocess.Popen(
                command, env=self.environment | environment, cwd=CHECKOUT, stdout=output, stderr=output
            )  # fmt: skip

    def worker(self, name: str, **environment: str) -> subprocess.Popen[bytes]:
        """A worker that runs one flow at a time."""
        command = [str(SCRIPTS / "prefect"), "worker", "start", "--pool", "headrace", "--name", name, "--limit", "1"]
        return self.start(command, name, PREFECT_WORKER_QUERY_SECONDS="1", **environment)

    def headrace(self, *arguments: str, log: str) -> subprocess.Popen[bytes]:
        """A `headrace` command that reports to the server."""
        return self.start([HEADRACE, *arguments], log)

    def api(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
        """Answer of the server's API; repeated as by Prefect's clients while the database is locked."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/{path}", data=data, headers=headers, method=method)
        for attempt in range(ATTEMPTS):
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    return json.loads(response.read() or "null")
            except urllib.error.HTTPError as error:
                if error.code != 503 or attempt == ATTEMPTS - 1:
                    raise
                time.sleep(2)
        raise AssertionError

    def free_slots(self, limit: str) -> None:
        """Make a concurrency limit of one slot anew: that of a killed flow run is leased for a minute more."""
        self.api(f"v2/concurrency_limits/{limit}", method="DELETE")
        self.api("v2/concurrency_limits/", {"name": limit, "limit": 1})

    def run(self, deployment: str, **parameters: Any) -> str:
        """Id of a new flow run of a deployment."""
        identity = self.api(f"deployments/name/{deployment}")["id"]
        return str(self.api(f"deployments/{identity}/create_flow_run", {"parameters": parameters})["id"])

    def flow_run(self, identity: str) -> Any:
        """A flow run."""
        return self.api(f"flow_runs/{identity}")

    def wait(self, identity: str, *states: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until a flow run has one of these types of state."""
        with suppress(AssertionError):
            wait_for(lambda: self.flow_run(identity)["state_type"] in (*states, *ENDED), seconds, 0.5)
        state = self.flow_run(identity)["state"]
        assert state["type"] in states, f"{state}\n{self.logs(identity)}"

    def wait_for_crash(self, identity: str) -> None:
        """Wait until a killed flow run has crashed and its worker is done with it.

        The worker reports the crash twice: the second report would also end a retry that was scheduled before it.
        """
        self.wait(identity, "CRASHED")
        resource = [f"prefect.flow-run.{identity}"]
        ended = {"event": {"name": ["prefect.worker.executed-flow-run"]}, "related": {"id": resource}}
        wait_for(lambda: self.api("events/filter", {"filter": ended})["total"], poll_seconds=0.5)

    def logs(self, identity: str) -> str:
        """Log of a flow run."""
        rows = self.api("logs/filter", {"logs": {"flow_run_id": {"any_": [identity]}}, "sort": "TIMESTAMP_ASC"})
        return "\n".join(row["message"] for row in rows)

    def process(self, identity: str) -> psutil.Process:
        """The process of a flow run that a worker started."""
        return psutil.Process(int(self.flow_run(identity)["infrastructure_pid"].rpartition(":")[2]))


@contextmanager
def serve(folder: Path, database: str | None = None, **more: str) -> Iterator[Server]:
    """A prepared server.

    Args:
        folder: for its files and logs.
        database: URL of its database; SQLite by default.
        more: variables for it and its workers.
    """
    [port] = free_ports(1)
    environment = {
        **os.environ, "PREFECT_HOME": str(folder / "home"), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "HEADRACE_HOME": str(folder / "store"), "PREFECT_SERVER_LOGGING_LEVEL": "WARNING", "PYTHONPATH": str(CHECKOUT),
        "PATH": f"{SCRIPTS}:{os.environ['PATH']}", "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem", **more,
    }  # fmt: skip
    environment.pop("PREFECT_LOGGING_LEVEL", None)  # of the tests' own Prefect
    if database:
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    server = Server(environment["PREFECT_API_URL"], folder, environment)
    process = server.start([str(SCRIPTS / "prefect"), "server", "start", "--port", str(port)], "server")
    try:
        wait_for(lambda: answers(f"{server.url}/health"))
        prepare = ["sh", str(CHECKOUT / "infra/deployment/prepare-prefect.sh")]
        subprocess.run(prepare, env=environment, check=True, capture_output=True)
        yield server
    finally:
        stop(process)


@contextmanager
def workers(server: Server, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Workers, stopped at the end with what they run."""
    started = [server.worker(f"worker-{number}") for number in range(count)]
    try:
        yield started
    finally:
        stop(*started)


def stop(*processes: subprocess.Popen[bytes]) -> None:
    """End processes and all that they have started."""
    families = [family(process.pid) for process in processes]
    for process in processes:
        process.terminate()
    for process, children in zip(processes, families, strict=True):
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for child in children:
            with suppress(psutil.Error):
                child.kill()


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    return [*living([pid]), *descendants(pid)]


def postgres_binaries() -> Path | None:
    """Folder of PostgreSQL's programs; Debian has it outside of PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("postgres")
    candidates = [*folders, *([Path(found).resolve().parent] if found else [])]
    return next((path for path in candidates if (path / "initdb").exists() and (path / "postgres").exists()), None)


@contextmanager
def postgres() -> Iterator[str]:
    """URL of a new database; its server refuses root, so root runs it as the user postgres or nobody."""
    binaries = postgres_binaries()
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="headrace-postgres-"))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        owner = next(entry for entry in pwd.getpwall() if entry.pw_name in ("postgres", "nobody"))
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    run: Callable[..., Any] = subprocess.run
    initdb = [str(binaries / "initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", "prefect", "--no-sync"]
    run(initdb, check=True, capture_output=True, cwd=folder, **user)
    [port] = free_ports(1)
    settings = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=200"]
    command = [str(binaries / "postgres"), "-D", str(folder / "data"), "-p", str(port), "-k", str(folder), *settings]
    with (folder / "postgres.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **user)
    try:
        ready = [str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
        wait_for(lambda: subprocess.run(ready, check=False, capture_output=True).returncode == 0)
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)  # a fast shutdown
        process.wait(WAIT_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def main(database: str) -> None:
    """Run eight deployments on four workers and count the errors of the server."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "prefect").mkdir()
        url = stack.enter_context(postgres()) if database == "postgres" else None
        server = stack.enter_context(serve(folder / "prefect", url))
        stack.enter_context(workers(server, 4))
        config = mini_values(write_corpus(folder / "texts"))
        deployed = {"config": config, "until": "tokenize"}
        runs = [server.run("headrace/pipeline", **deployed, store=f"{folder}/{number}") for number in range(8)]
        for run in runs:
            server.wait(run, "COMPLETED", "FAILED", "CRASHED", seconds=600)
        states = Counter(server.flow_run(run)["state_type"] for run in runs)
        errors = [line for line in server.log.splitlines() if "ERROR" in line]
        locked = server.log.count("sqlite3.OperationalError: database is locked")
        print(f"{database}: {dict(states)}, {len(errors)} errors, {locked} times 'database is locked'")


if __name__ == "__main__":
    main(*sys.argv[1:])
