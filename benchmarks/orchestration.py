"""Overhead of the pipeline itself: `python -m benchmarks.orchestration [--quick]`.

- cached_rerun_over_prefect_seconds: a run that reuses every stage, less an empty Prefect flow on the same machine
- wall_over_compute: wall time of a small run, less the empty flow's, over the seconds of its stages
- train_startup_seconds: from the start of the training stage to its first step, with two Ray workers, the data stages
  before it running in the same command; beside it, with the data stages reused (`train_startup_alone_seconds`)
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

EMPTY_FLOW = """
import flows
from prefect import flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
    flow(lambda: None, name="empty")()
"""
HEADRACE = str(Path(sys.executable).with_name("headrace"))
CONFIG = {
    "name": "orchestration",
    "execution": {"engine": "inline"},
    "ingest": {"max_source_bytes": 1_500_000},
    "dedup": {"held_out_share": 0.2},
    "tokenize": {"vocabulary_size": 512},
    "pretrain": {
        "model": {"layers": 2, "width": 64, "heads": 2, "context_length": 128},
        "workers": 0,
        "tokens": 524_288,
        "batch_tokens": 4_096,
        "micro_batch": 32,
    },
    "compress": {"passes": [{"kind": "int8"}], "measured_bytes": 20_000},
    "benchmark": {"held_out_bytes": 20_000},
}


def main() -> None:
    """Alternate the empty flow and the cached run; print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds instead of seven")
    rounds = 3 if parser.parse_args().quick else 7
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(yaml.safe_dump(CONFIG))
        run = [HEADRACE, "run", str(config), "--store", f"{folder}/store", "--json"]
        empty = [sys.executable, "-c", EMPTY_FLOW]
        _seconds(empty)
        first_seconds, first = _seconds(run)
        pairs = [(_seconds(empty)[0], _seconds(run)[0]) for _ in range(rounds)]
        startups = [_startups(run, folder, number) for number in range(rounds)]
    empty_seconds = statistics.median(pair[0] for pair in pairs)
    stage_seconds = sum(row["seconds"] for row in json.loads(first.splitlines()[-1])["stages"])
    metrics = {
        "empty_prefect_flow_seconds": round(empty_seconds, 2),
        "cached_run_seconds": round(statistics.median(pair[1] for pair in pairs), 2),
        "first_run_seconds": round(first_seconds, 2),
        "stage_seconds": round(stage_seconds, 2),
        "train_startup_seconds": round(statistics.median(pair[0] for pair in startups), 2),
        "train_startup_alone_seconds": round(statistics.median(pair[1] for pair in startups), 2),
    }
    ratios = {
        "cached_rerun_over_prefect_seconds": round(statistics.median(cached - bare for bare, cached in pairs), 2),
        "wall_over_compute": round((first_seconds - empty_seconds) / stage_seconds, 3),
    }
    table = Table("metric", "median")
    for name, value in {**metrics, **ratios}.items():
        table.add_row(name, str(value))
    Console().print(table)
    print(json.dumps({**metrics, **ratios}))


def _startups(run: list[str], folder: str, number: int) -> tuple[float, float]:
    """Seconds from the start of training on two workers to its first step: after data stages that ran, and alone."""
    settings = ["pretrain.workers=2", "pretrain.micro_batch=4", "pretrain.tokens=65536", f"pretrain.seed={number}"]
    overrides = [part for setting in settings for part in ("--set", setting)]
    first = [*run, "--store", f"{folder}/workers-{number}", "--until", "pretrain", *overrides]
    results = [_seconds([*first, *more])[1] for more in ([], ["--set", f"pretrain.seed={number + 1000}"])]
    before, alone = (json.loads(result.splitlines()[-1])["metrics"]["pretrain"] for result in results)
    return before["startup_seconds"], alone["startup_seconds"]


def _seconds(command: list[str]) -> tuple[float, str]:
    start = time.perf_counter()
    completed = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, completed.stdout


if __name__ == "__main__":
    main()
