"""`headrace sweep` over the variants of an experiment: every run to its benchmark, then a table of differences.

- `run_experiment`: runs all variants, seed by seed; what the store has is reused
- `compared`: the difference of each variant to the baseline under the same condition, paired by seed
- `print_experiment`, `experiment_json`: the output of the command
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from data_schemas.errors import ConfigError, NotFoundError
from flows.config.experiments import Cell, Experiment, cells, configs
from flows.config.run_config import RunConfigBase
from flows.console import console, plain_table
from flows.runs.request import RunRequest
from flows.runs.view import RunView
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore
from stages.common.statistics import student_interval

LAST_STAGE = "benchmark"


@dataclass(frozen=True)
class CellResult:
    """Scores of one variant under one condition."""

    cell: Cell
    scores: Mapping[int, float]
    """Seed -> score."""
    runs: Sequence[str]
    refused: str = ""


@dataclass(frozen=True)
class Comparison:
    """One variant beside the baseline."""

    condition: str
    variant: str
    score: float
    """Mean over seeds."""
    difference: float | None
    """Mean difference to the baseline, paired by seed; None for the baseline."""
    low: float | None
    """Lower end of its 95 % interval (Student's t over the seeds); None for one seed."""
    high: float | None
    verdict: str
    """`better` or `worse` if the interval excludes 0, else `no clear difference`."""


def run_experiment(config: RunConfigBase, experiment: Experiment, store_url: str, view: RunView) -> list[CellResult]:
    """Run all variants; one that a stage refuses is recorded with the reason."""
    from flows.pipeline import execute_request

    results = []
    rows = cells(experiment)
    checked = {cell: list(configs(config, experiment, cell)) for cell in rows}
    for number, cell in enumerate(rows, start=1):
        view.logged(f"variant {number} of {len(rows)}: {cell.label}")
        scores: dict[int, float] = {}
        runs: list[str] = []
        refused = ""
        for seed, changed in checked[cell]:
            try:
                runs.append(execute_request(RunRequest(changed, store_url, last_stage=LAST_STAGE), view))
            except ConfigError as error:
                refused = str(error)
                view.logged(f"refused: {error}")
                break
            scores[seed] = _score(store_url, runs[-1], experiment)
        results.append(CellResult(cell, scores, runs, refused))
    return results


def _score(store_url: str, run_id: str, experiment: Experiment) -> float:
    record = RunStore(store_url).get(run_id)
    wanted = (experiment.task, experiment.metric, experiment.model)
    table = ArtifactStore(store_url).open(record.stages[LAST_STAGE].artifact).read_table("scores.parquet")
    for row in table.to_pylist():
        if (row["task"], row["metric"], row["model"]) == wanted and row["value"] is not None:
            return float(row["value"])
    raise NotFoundError(f"run {run_id} has no score {', '.join(wanted)}; see: headrace show {run_id}")


def compared(results: Sequence[CellResult], experiment: Experiment) -> list[Comparison]:
    """Comparisons in the order of the results, without variants that were refused; less is better."""
    assert experiment.baseline is not None
    by_cell = {result.cell: result for result in results}
    rows = []
    for result in results:
        if not result.scores:
            continue
        condition, variant = result.cell
        baseline = by_cell[Cell(condition, experiment.baseline)].scores
        seeds = [seed for seed in result.scores if seed in baseline]
        mean = fmean(result.scores.values())
        if variant == experiment.baseline or not seeds:
            rows.append(Comparison(condition, variant, mean, None, None, None, "baseline" if seeds else "no baseline"))
            continue
        interval = student_interval([result.scores[seed] - baseline[seed] for seed in seeds])
        low, high = (interval.low, interval.high) if len(seeds) > 1 else (None, None)
        rows.append(Comparison(condition, variant, mean, interval.value, low, high, _verdict(low, high)))
    return rows


def _verdict(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "one seed: no interval"
    return "better" if high < 0 else "worse" if low > 0 else "no clear difference"


def print_experiment(results: Sequence[CellResult], experiment: Experiment) -> None:
    """Print a row per variant and condition."""
    titles = ("condition", "variant", experiment.metric, f"to {experiment.baseline}", "95 % interval", "")
    table = plain_table(titles, words=("condition", "variant", ""))
    for row in compared(results, experiment):
        difference = "" if row.difference is None else f"{row.difference:+.4f}"
        interval = "" if row.low is None or row.high is None else f"{row.low:+.4f} to {row.high:+.4f}"
        table.add_row(row.condition, row.variant, f"{row.score:.4f}", difference, interval, row.verdict)
    console.print(table)
    seeds = ", ".join(map(str, experiment.seeds))
    console.print(f"{experiment.task}, {experiment.model} model; means over the seeds {seeds}")
    for result in results:
        if result.refused:
            console.print(f"refused: {result.cell.label}: {result.refused}")


def experiment_json(results: Sequence[CellResult], experiment: Experiment) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {
        "variants": [
            {
                "condition": result.cell.condition,
                "variant": result.cell.variant,
                "scores": {str(seed): score for seed, score in result.scores.items()},
                "runs": list(result.runs),
                "refused": result.refused,
            }
            for result in results
        ],
        "comparisons": [asdict(row) for row in compared(results, experiment)],
    }
