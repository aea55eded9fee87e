"""Commands in a store of 10,000 runs on a local disk: `python -m benchmarks.many_runs [--quick]`.

- runs_seconds, latest_seconds: wall time of `headrace runs` and `headrace show latest`, Python's start included
- first_seconds: the same of `headrace runs` before there is an index
- over_small_store: `headrace runs` there over that in a store of ten runs
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data_schemas.manifest import ArtifactRef, RunRecord, StageOutcome
from flows.config.run_config import load_run_config
from infra.store.run_index import INDEX
from infra.store.runs import RunStore
from stages.registry import stages_of

HEADRACE = str(Path(sys.executable).with_name("headrace"))
MANY, FEW = 10_000, 10


def main() -> None:
    """Fill two stores, alternate the commands; print the medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds instead of seven")
    rounds = 3 if parser.parse_args().quick else 7
    with tempfile.TemporaryDirectory() as folder:
        many, few = f"{folder}/many", f"{folder}/few"
        _fill(many, MANY)
        _fill(few, FEW)
        first, seconds = [], []
        for _ in range(rounds):
            Path(many, "runs", INDEX).unlink(missing_ok=True)
            first.append(_seconds("runs", many))
            seconds.append((_seconds("runs", many), _seconds("show", many), _seconds("runs", few)))
    runs, latest, small = (statistics.median(column) for column in zip(*seconds, strict=True))
    results = {
        "runs_seconds": runs,
        "latest_seconds": latest,
        "first_seconds": statistics.median(first),
        "over_small_store": runs / small,
    }
    table = Table(title=f"{MANY:,} runs, medians of {rounds} rounds")
    table.add_column("command")
    table.add_column("seconds", justify="right")
    for name, value in (("runs, no index yet", results["first_seconds"]), ("runs", runs), ("show latest", latest)):
        table.add_row(f"headrace {name}", f"{value:.2f}")
    table.add_row(f"headrace runs, {FEW} runs", f"{small:.2f}")
    Console().print(table)
    print(json.dumps({name: round(value, 3) for name, value in results.items()}))


def _fill(store: str, count: int) -> None:
    """Records of finished runs of the demo, as they are in a real store."""
    config = load_run_config("configs/demo.yaml").model_dump(mode="json")
    runs, begin = RunStore(store), datetime(2026, 1, 1, tzinfo=UTC)
    folder = Path(store, "runs")
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        run_id = f"quiet-otter-{number:05x}"
        ref = {"key": f"{number:064x}", "attempt": run_id, "digest": f"{number:064x}"}
        stages = {
            stage.name: StageOutcome(
                action="run", why="never run in this store", artifact=ArtifactRef(stage=stage.name, **ref), seconds=1.0
            )
            for stage in stages_of(config)
        }
        record = RunRecord(
            run_id=run_id, config_name="demo", config=config, config_digest=f"{number:064x}", status="finished",
            sequence=number, claim=1, host="host", pid=1, process_started=1.0,
            started=begin + timedelta(minutes=number), ended=begin + timedelta(minutes=number + 1), stages=stages,
        )  # fmt: skip
        (folder / f"{run_id}.json").write_text(record.model_dump_json(indent=1))
        claims = folder / f"{run_id}.claims"
        claims.mkdir()
        (claims / "000001.json").write_text("{}")
    assert len(runs.folder.names()) == 2 * count


def _seconds(command: str, store: str) -> float:
    start = time.perf_counter()
    done = subprocess.run([HEADRACE, command, "--store", store], capture_output=True, text=True, check=True)
    assert "quiet-otter" in done.stdout, done.stdout
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
