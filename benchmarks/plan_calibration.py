"""Plans before and after calibration: `python -m benchmarks.plan_calibration [--quick] [CONFIG]`.

A config, by default the demo, is planned at the rates of the code, then at those of `headrace calibrate`, and run. All
its stages run a second time, planned at the rates that the first time has taught.

- seconds by stage: planned by the table, planned after calibration, measured; planned after the run, measured again
- time_error_percent_table, time_error_percent_calibrated, time_error_percent_learned: mean over the stages that take at
  least two seconds; pretrain_ratio_*: measured over planned
- calibrate_seconds: wall time of the calibration

Cache folder and store are temporary: neither this machine's rates nor its runs are read or changed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

HEADRACE = str(Path(sys.executable).with_name("headrace"))
QUICK = ["ingest.max_source_bytes=12_000_000", "pretrain.tokens=200_000", "pretrain.checkpoint_every_steps=100"]
MIN_SECONDS = 2.0
Seconds = dict[str, float]


def main() -> None:
    """Plan, calibrate, plan, run, run again; print the table and the errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="?", default="configs/demo.yaml")
    parser.add_argument("--quick", action="store_true", help="a fifth of the text, some steps of training")
    arguments = parser.parse_args()
    config = [arguments.config, *(part for value in QUICK if arguments.quick for part in ("--set", value))]
    until = ["--until", "pretrain"] if arguments.quick else []
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XDG_CACHE_HOME": f"{folder}/cache", "HEADRACE_HOME": f"{folder}/store"}
        seconds = {"table": _planned(config)}
        calibration = _headrace("calibrate", *config)
        seconds["calibrated"] = _planned(config)
        first = _headrace("run", *config, *until)["run_id"]
        second = _headrace("rerun", "--from", "ingest", *until)["run_id"]
        rows = {(row["run_id"], row["stage"]): row for row in _headrace("calibration")["stages"]}
    stages = [stage for run, stage in rows if run == first]
    seconds["measured"] = {stage: rows[first, stage]["measured"]["seconds"] for stage in stages}
    seconds["learned"] = {stage: rows[second, stage]["planned"]["seconds"] for stage in stages}
    seconds["measured again"] = {stage: rows[second, stage]["measured"]["seconds"] for stage in stages}
    table = Table("stage", *seconds)
    for stage in reversed(stages):
        table.add_row(stage, *(f"{column[stage]:.1f}" for column in seconds.values()))
    Console().print(table)
    print(json.dumps(_errors(seconds) | {"calibrate_seconds": round(calibration["seconds"], 1)}))


def _headrace(*arguments: str) -> dict[str, Any]:
    """The JSON object that a command prints last."""
    done = subprocess.run([HEADRACE, *arguments, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    *lines, last = done.stdout.splitlines()
    print(f"headrace {' '.join(arguments)}", *lines, sep="\n  ", file=sys.stderr)
    return dict(json.loads(last))


def _planned(config: Sequence[str]) -> Seconds:
    rows = _headrace("plan", *config)["stages"]
    return {row["stage"]: row["estimate"]["seconds"] for row in rows if row["estimate"]}


def _errors(seconds: dict[str, Seconds]) -> dict[str, float]:
    """Mean error in percent of the longer stages and the ratio of pretraining, by the plan."""
    errors: dict[str, float] = {}
    for plan, measured in (("table", "measured"), ("calibrated", "measured"), ("learned", "measured again")):
        took = seconds[measured]
        ratios = {stage: took[stage] / seconds[plan][stage] for stage in took if took[stage] >= MIN_SECONDS}
        errors[f"time_error_percent_{plan}"] = round(100 * mean(abs(1 / ratio - 1) for ratio in ratios.values()), 1)
        errors[f"pretrain_ratio_{plan}"] = round(ratios["pretrain"], 2)
    return errors


if __name__ == "__main__":
    main()
