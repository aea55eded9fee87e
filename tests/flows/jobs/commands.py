"""`headrace` on a real Ray cluster: each command is a process of its own, with a store and a config of its own.

- `Commands`: commands, what they and the jobs print, and what is left on the cluster
- `WHOLE`: options of a run by one job that trains until it is stopped; `ENDLESS`: its tokens
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import psutil
import yaml

from infra.ray_jobs.logs import LogReader
from infra.ray_jobs.requests import JobFolder, JobRequest
from infra.store.runs import RunStore
from tests.flows.mini import mini_config, mini_values, run_config, write_corpus
from tests.infra.ray_jobs.ray_cluster import RayCluster
from tests.processes import WAIT_SECONDS

MAIN = "from flows.cli import main; main()"
ENDLESS = 2**28
"""Tokens of a training that takes hours on any machine; it is stopped in time."""
WHOLE = (
    "--on", "ray", "--set", "execution.submit=run", "--until", "pretrain", "--set", f"pretrain.tokens={ENDLESS}",
    "--set", "pretrain.workers=0",
)  # fmt: skip
RESOURCES = """
import json, sys, time, ray
from ray.util.state import list_actors
ray.init(sys.argv[1], logging_level="ERROR", log_to_driver=False)
deadline = time.monotonic() + 120
while True:
    total, free = ray.cluster_resources(), ray.available_resources()
    actors = [actor.class_name for actor in list_actors(sys.argv[2], filters=[("state", "!=", "DEAD")])]
    is_free = total.get("CPU") == free.get("CPU") and set(actors) <= {"_AutoscalingCoordinatorActor"}
    if is_free or time.monotonic() > deadline:
        break
    time.sleep(0.2)
print(json.dumps([total["CPU"], free.get("CPU"), actors]))
"""


class Commands:
    """`headrace` with a store and a config of its own, in a folder with a blank in its name."""

    def __init__(self, cluster: RayCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder / "a folder"
        self.store, self.started = str(self.folder / "the store"), list["subprocess.Popen[str]"]()
        self.corpus = write_corpus(self.folder / "texts")
        values = mini_values(self.corpus)
        values["execution"] |= {
            "address": cluster.dashboard, "shared_filesystem": True, "python": sys.executable, "follow_seconds": 0.5,
        }  # fmt: skip
        self.config = str(self.folder / "mini.yaml")
        Path(self.config).write_text(yaml.safe_dump(values))
        prefect = str(self.folder / "prefect")
        self.environment = {**cluster.environment, "HEADRACE_HOME": self.store, "PREFECT_HOME": prefect}

    def prepare(self, last_stage: str = "tokenize") -> None:
        """Make the artifacts of the first stages here, so that jobs reuse them."""
        run_config(self.store, mini_config(self.corpus), last_stage=last_stage)

    def on_ray(self, submit: str) -> list[str]:
        """Options for the rerun of a run that was executed here."""
        execution = yaml.safe_load(Path(self.config).read_text())["execution"] | {"submit": submit}
        return [option for key, value in execution.items() for option in ("--set", f"execution.{key}={value}")]

    def start(self, *arguments: str, script: str = MAIN, **environment: str) -> "subprocess.Popen[str]":
        """A command in the background."""
        with self._output(len(self.started)).open("w") as output:
            started = subprocess.Popen(
                [sys.executable, "-c", script, *arguments], env=self.environment | environment, stdout=output,
                stderr=output, text=True,
            )  # fmt: skip
        self.started.append(started)
        return started

    def printed(self, started: "subprocess.Popen[str]") -> str:
        """The output of a command so far."""
        return self._output(self.started.index(started)).read_text()

    def ended(self, started: "subprocess.Popen[str]", status: int = 0) -> str:
        """Output of a command that is about to end."""
        started.wait(WAIT_SECONDS)
        assert started.returncode == status, self.printed(started)
        return self.printed(started)

    def __call__(self, *arguments: str, status: int = 0, **environment: str) -> str:
        """Output of a command."""
        return self.ended(self.start(*arguments, **environment), status)

    def _output(self, number: int) -> Path:
        return self.folder / f"output-{number}.txt"

    def close(self) -> None:
        """Kill what still runs."""
        for started in self.started:
            started.kill()
            started.wait()

    @property
    def runs(self) -> RunStore:
        """The runs of the store."""
        return RunStore(self.store)

    @property
    def run_id(self) -> str:
        """The newest run."""
        return self.runs.get("latest").run_id

    def jobs(self) -> list[JobRequest]:
        """The jobs of the newest run."""
        return JobFolder(self.runs.folder, self.run_id).all()

    def driver(self, number: int) -> psutil.Process:
        """The process that took a fencing number of the newest run."""
        owner = self.runs.claims(self.run_id).owner(number)
        assert owner is not None
        return psutil.Process(owner.process.pid)

    def checkpoint(self) -> int:
        """Step of the last checkpoint; 0 before the first."""
        markers = Path(self.store).glob("pretrain/*/*/work/train/*/complete.json")
        return max((int(marker.parent.name.rpartition("-")[2]) for marker in markers), default=0)

    def log(self, first: int = 0) -> str:
        """Text that the jobs of the newest run have printed, from a fencing number on."""
        newest = self.runs.all()[:1]
        return "".join(LogReader(self.runs.folder, newest[0].run_id, first).new_text()) if newest else ""

    def first_step(self, number: int) -> int:
        """First step of training that a job has printed; 0 before."""
        found = re.search(r"train: step ([\d,]+)", self.log(number))
        return int(found[1].replace(",", "")) if found else 0

    def nothing_is_left(self) -> None:
        """Every processor of the cluster is free, and no actor but Ray's own is alive or waits."""
        script = [sys.executable, "-c", RESOURCES, f"127.0.0.1:{self.cluster.port}", self.cluster.dashboard]
        done = subprocess.run(script, env=self.cluster.environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        total, free, actors = json.loads(done.stdout.splitlines()[-1])
        assert (free, actors) == (total, ["_AutoscalingCoordinatorActor"] * len(actors)), done.stderr
