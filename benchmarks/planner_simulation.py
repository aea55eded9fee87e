"""Failures of long runs and pipeline schedules, simulated: `python -m benchmarks.planner_simulation [--quick]`.

Nine months on 1,000 to 131,072 devices: the best checkpoint interval found by simulation beside the formulas of Young
(1974) and Daly (2006), and the simulated goodput, with the interval that holds nine of ten runs, beside the exact one.

Then idle shares of four pipeline schedules whose three passes take equally long, with and without time for sending.

- interval_off_percent: largest distance of the simulated interval from Daly's
- goodput_off_points: largest distance of the mean goodput from the exact one, in percentage points
"""

import argparse
import json

from rich.console import Console
from rich.table import Table

from infra.planner.failures import Failures, daly_interval, expected_goodput, simulate_run, young_interval
from infra.planner.run_costs import CHECKPOINT_SECONDS, RESTART_SECONDS, SECONDS_PER_DAY
from infra.planner.schedules import Costs, Schedule, simulate

NINE_MONTHS = 274 * SECONDS_PER_DAY
DEVICES = (1_024, 4_096, 16_384, 32_768, 131_072)
MTBF_HOURS = 50_000
"""Device-hours between failures: 419 unexpected interruptions in 54 days on 16,384 H100 (Llama 3, 2407.21783)."""

PIPELINES = ((4, 8), (8, 32), (16, 64))
SENDS = (0.0, 0.1)
"""Seconds of sending to the next device, over those of a forward pass."""
CHUNKS: dict[Schedule, int] = {"gpipe": 1, "1f1b": 1, "interleaved": 2, "zero-bubble": 1}


def main() -> None:
    """Simulate runs and pipelines; print their tables and the largest distances from the formulas."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two sizes")
    devices = DEVICES[:2] if parser.parse_args().quick else DEVICES
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("devices", "failures", "simulated s", "Daly s", "Young s", "goodput", "nine of ten runs", "exact"):
        table.add_column(name, justify="right")
    intervals, shares = [], []
    for count in devices:
        failures = Failures(MTBF_HOURS * 3_600 / count, CHECKPOINT_SECONDS, RESTART_SECONDS)
        run, daly = simulate_run(failures, NINE_MONTHS), daly_interval(failures)
        exact = expected_goodput(failures, run.interval)
        intervals.append(abs(run.interval / daly - 1))
        shares.append(abs(run.goodput - exact))
        table.add_row(
            f"{count:,}", f"{NINE_MONTHS / failures.mtbf:,.0f}", f"{run.interval:,.0f}", f"{daly:,.0f}",
            f"{young_interval(failures):,.0f}", f"{run.goodput:.2%}", f"{run.low:.2%} to {run.high:.2%}",
            f"{exact:.2%}",
        )  # fmt: skip
    Console().print(table)
    Console().print(_schedules())
    print(json.dumps({"interval_off_percent": 100 * max(intervals), "goodput_off_points": 100 * max(shares)}))


def _schedules() -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("devices", "micro-batches", "send", *CHUNKS):
        table.add_column(name, justify="right")
    for devices, count in PIPELINES:
        for send in SENDS:
            runs = [simulate(name, Costs(1, 1, 1, send), devices, count, chunks) for name, chunks in CHUNKS.items()]
            held = [run.held(0) / chunks for run, chunks in zip(runs, CHUNKS.values(), strict=True)]
            cells = [f"{run.idle_share:.1%}, {own:.3g}" for run, own in zip(runs, held, strict=True)]
            table.add_row(str(devices), str(count), str(send), *cells)
    return table


if __name__ == "__main__":
    main()
