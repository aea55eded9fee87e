"""Planner against published runs: `python -m benchmarks.planner_accuracy [FILE.csv] [--quick] [--fit] [--rows]`.

Predicts step time and memory of every row with the constants of `infra.planner.step_time`, which were fitted on one
block of rows, and compares them with what was published, block by block. The file has the columns of
`infra.planner.published.rows`; by default it is ../shared/research/published_runs.csv beside the checkout.

- time_error_percent: mean absolute error of all rows outside the fitted block
- memory_error_percent: mean absolute error of the memory of all rows
- --fit: fits the constants again on that block, and prints them
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import astuple
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from data_schemas.errors import HeadraceError
from infra.planner.published.accuracy import (
    FITTED_BLOCK,
    KINDS,
    BlockErrors,
    Kind,
    Prediction,
    errors_by_block,
    held_out_coverage,
    interval,
    predict,
    ratios_by_block,
)
from infra.planner.published.interpretation import Run, interpret
from infra.planner.published.rows import read_rows
from infra.planner.step_time import FITTED, Constants

FILE = Path(__file__).resolve().parents[2] / "shared" / "research" / "published_runs.csv"
START = Constants(0.9, 0.5, 60.0, 40.0, 1e-4, 0.5, 0.6)
SOFT_ERROR = 0.05
"""Errors beyond it count less: a row of the block may have ended for another reason."""


def main() -> None:
    """Predict all rows; print the table of blocks and the errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", default=str(FILE), help="CSV file of published runs")
    parser.add_argument("--quick", action="store_true", help="no difference: it takes seconds")
    parser.add_argument("--fit", action="store_true", help="fit the constants on the block again")
    parser.add_argument("--rows", action="store_true", help="print every row")
    arguments = parser.parse_args()
    console = Console(width=160)
    if not Path(arguments.file).is_file():
        console.print(f"there is no file {arguments.file} of published runs; nothing is measured", markup=False)
        print(json.dumps({"time_error_percent": None, "memory_error_percent": None}))
        return
    try:
        runs = [interpret(row) for row in read_rows(arguments.file)]
    except HeadraceError as error:
        parser.error(str(error))
    constants = fit([run for run in runs if isinstance(run, Run)]) if arguments.fit else FITTED
    if arguments.fit:
        console.print(f"fitted: {constants}")
    predictions = [predict(run, constants) for run in runs if isinstance(run, Run)]
    for sentence in (run for run in runs if isinstance(run, str)):
        console.print(f"not predicted: {sentence}", markup=False)
    if arguments.rows:
        console.print(_rows(predictions))
    ratios = {}
    for kind in KINDS:
        blocks = errors_by_block(predictions, kind)
        console.print(f"\n{kind}, fitted on {FITTED_BLOCK}" if kind == "time" else f"\n{kind}", markup=False)
        console.print(_table(blocks))
        console.print(_coverage(predictions, kind), markup=False)
        ratios[f"{kind}_error_percent"] = round(blocks[-1].mean, 2) if blocks else None
    print(json.dumps(ratios))


def _coverage(predictions: Sequence[Prediction], kind: Kind) -> str:
    blocks = ratios_by_block(predictions, kind)
    if len(blocks) < 2:
        return "too few blocks to set an interval on some and test it on others"
    low, high = interval(list(blocks.values()))
    rows, by_block = held_out_coverage(predictions, kind)
    return (
        f"measured over predicted: {low:.2f} to {high:.2f}; set on all other blocks, the interval holds {rows:.0%} of "
        f"the rows, mean over blocks {by_block:.0%}"
    )


def fit(runs: Sequence[Run]) -> Constants:
    """Constants that minimize the logarithmic errors of the step times of one block."""
    from scipy.optimize import least_squares

    block = [run for run in runs if run.row.block == FITTED_BLOCK]
    start = np.array(astuple(START))
    found = least_squares(
        partial(_log_errors, block, start), np.zeros(len(start)), bounds=(-2, 0.7), loss="soft_l1", f_scale=SOFT_ERROR
    )
    return Constants(*(float(value) for value in start * np.exp(found.x)))


def _log_errors(
    block: Sequence[Run], start: npt.NDArray[np.float64], exponents: npt.NDArray[np.float64]
) -> list[float]:
    constants = Constants(*(float(value) for value in start * np.exp(exponents)))
    predictions = [predict(run, constants) for run in block]
    return [float(np.log(row.step_seconds / row.measured_seconds)) for row in predictions if row.measured_seconds]


def _table(blocks: Sequence[BlockErrors]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("block", "rows", "mean %", "largest %", "within 15 %", "in the interval"):
        table.add_column(title, justify="left" if title == "block" else "right")
    for block in blocks:
        table.add_row(
            block.block, str(block.rows), f"{block.mean:.1f}", f"{block.largest:.1f}", f"{block.within_15:.0%}",
            f"{block.covered:.0%}",
        )  # fmt: skip
    return table


def _rows(predictions: Sequence[Prediction]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("line", "network", "layout", "step s", "measured", "error %", "memory GiB", "measured", "error %"):
        table.add_column(title, justify="left" if title in ("network", "layout") else "right")
    for row in predictions:
        table.add_row(
            str(row.run.row.line), row.run.row.model[:30], row.run.layout.label(), f"{row.step_seconds:.3g}",
            _number(row.measured_seconds), _number(row.time_error_percent, "+.1f"), f"{row.memory_bytes / 2**30:.1f}",
            _number(row.measured_memory and row.measured_memory / 2**30), _number(row.memory_error_percent, "+.1f"),
        )  # fmt: skip
    return table


def _number(value: float | None, form: str = ".3g") -> str:
    return "" if value is None else format(value, form)


if __name__ == "__main__":
    main()
