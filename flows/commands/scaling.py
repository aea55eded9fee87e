"""`headrace sweep` over sizes and tokens: every run to its benchmark, then the scaling law and what to train by it.

- `check_budgets`: refuses budgets that the grid cannot answer for, before anything is trained
- `run_scaling`: runs the grid, fits the law, writes `fit.json` and its page to the store; what the store has is reused
- `answers_of`: runs proposed for budgets, each with its config in the store
- `print_scaling`, `print_answers`, `scaling_json`: the output of the command
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import yaml

from data_schemas.errors import ConfigError
from flows.commands.cluster_plan.budgets import (
    Placement,
    check_cluster_budget,
    cluster_answer,
    placement_json,
    placement_line,
)
from flows.commands.experiment import CellResult, run_experiment
from flows.config.experiments import Cell, Experiment, cells, configs
from flows.config.run_config import RunConfigBase, public_config
from flows.console import amount, console, duration, plain_table
from flows.planning.store_rates import StoreRates
from flows.report.scaling import scaling_page
from flows.runs.artifacts import page_location
from flows.runs.view import RunView
from flows.scaling.answers import Answer, answer, budget_flops
from flows.scaling.family import TRAINING
from flows.scaling.fit import PAGE, ScaledRun, ScalingFit, fit_folder, write_fit
from flows.scaling.reach import Reach, planned_run
from flows.scaling.runs import check_grid, fit_runs, scaled_run
from infra.planner.clusters import Cluster
from infra.planner.scaling_law import ScalingLaw
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore
from stages.tokenize.config import TokenizeConfig

CONSTANTS: dict[str, Callable[[ScalingLaw], float]] = {
    "E": lambda law: law.irreducible,
    "A": lambda law: law.parameter_term,
    "B": lambda law: law.token_term,
    "alpha": lambda law: law.parameter_exponent,
    "beta": lambda law: law.token_exponent,
    "best size grows as C^a, a": lambda law: law.optimal_exponent,
}


@dataclass(frozen=True)
class ScalingResult:
    """A fitted grid."""

    fit: ScalingFit
    config: RunConfigBase
    """Config of the run with most parameters."""
    refused: Sequence[CellResult]
    location: str
    """Path or URL of the page."""


def check_budgets(
    config: RunConfigBase,
    experiment: Experiment,
    budgets: Sequence[str],
    store_url: str,
    cluster: Cluster | None = None,
) -> None:
    """Check that the runs of a grid, which are not trained yet, would be near enough to every budget.

    Raises:
        ConfigError: for a budget that is not understood or too far from the runs, or a grid that determines no law.
    """
    if not budgets:
        return
    assert experiment.scaling is not None
    runs_of = _checked_grid(config, experiment)
    rows = [(planned_run(cell, seed, run), run) for cell, runs in runs_of.items() for seed, run in runs]
    largest = max(rows, key=lambda row: row[0].parameters)[1]
    tokenize = largest.stage_config("tokenize")
    assert isinstance(tokenize, TokenizeConfig)
    reach = Reach([run for run, _ in rows], tokenize.vocabulary_size, experiment.scaling.max_extrapolation)
    rates = StoreRates(store_url).rates
    for budget in budgets:
        if cluster is not None:
            check_cluster_budget(reach, largest, cluster, budget)
            continue
        flops, rate = budget_flops(budget, largest, tokenize.vocabulary_size, rates)
        reach.check(budget, flops, _as_time(rate))


def _checked_grid(config: RunConfigBase, experiment: Experiment) -> dict[Cell, list[tuple[int, RunConfigBase]]]:
    runs_of = {cell: list(configs(config, experiment, cell)) for cell in cells(experiment)}
    check_grid(experiment, runs_of)
    return runs_of


def run_scaling(config: RunConfigBase, experiment: Experiment, store_url: str, view: RunView) -> ScalingResult:
    """Train the grid and fit the law.

    Raises:
        ConfigError: if the grid cannot determine a law, or no longer can after runs were refused.
    """
    runs_of = _checked_grid(config, experiment)
    results = run_experiment(config, experiment, store_url, view)
    pairs = [(result.cell, seed, run_id, result.scores[seed])
             for result in results for seed, run_id in zip(result.scores, result.runs, strict=True)]  # fmt: skip
    refused = [result for result in results if result.refused]
    if not pairs:
        raise ConfigError(f"no run of the experiment succeeded; the first was refused: {refused[0].refused}")
    artifacts, records = ArtifactStore(store_url), RunStore(store_url)
    rows: list[ScaledRun] = []
    for cell, seed, run_id, score in pairs:
        training = artifacts.open(records.get(run_id).stages[TRAINING].artifact).manifest
        rows.append(scaled_run(cell, seed, run_id, score, training))
    tokens = artifacts.open(training.inputs["tokens"]).manifest
    largest = max(range(len(rows)), key=lambda number: rows[number].parameters)
    view.logged(f"fitting the scaling law to {len(rows)} runs")
    base = dict(runs_of[pairs[largest][0]])[pairs[largest][1]]
    fit = fit_runs(base, experiment, rows, tokens)
    write_fit(store_url, fit)
    folder = fit_folder(store_url, fit.family)
    folder.write(PAGE, scaling_page(fit).encode())
    return ScalingResult(fit, base, refused, page_location(folder, PAGE))


class Proposal(NamedTuple):
    """The run that is proposed for a budget."""

    answer: Answer
    location: str
    """Path or URL of its run config."""
    placement: Placement | None = None
    """Where it trains, if the budget is one on a cluster."""


def answers_of(
    result: ScalingResult, budgets: Sequence[str], store_url: str, cluster: Cluster | None = None
) -> list[Proposal]:
    """The proposed run of each budget.

    Raises:
        ConfigError: if a budget is not understood, or is too far from the runs.
    """
    folder, rates = fit_folder(store_url, result.fit.family), StoreRates(store_url).rates
    rows = []
    for budget in budgets:
        placement = None
        if cluster is None:
            flops, rate = budget_flops(budget, result.config, result.fit.vocabulary_size, rates)
            proposed = answer(result.fit, budget, flops, _as_time(rate))
        else:
            proposed, placement = cluster_answer(result.fit, result.config, cluster, budget)
        label = f"{budget} {cluster.name}" if cluster else budget
        name = f"{''.join(letter for letter in label if letter.isalnum() or letter == '.')}.yaml"
        values = public_config(proposed.config(result.config)).model_dump(mode="json")
        folder.write(name, yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode())
        rows.append(Proposal(proposed, page_location(folder, name), placement))
    return rows


def _as_time(flops_per_second: float | None) -> Callable[[float], str] | None:
    """Text of a number of FLOPs as time at a rate."""
    return None if flops_per_second is None else lambda flops: duration(flops / flops_per_second)


def print_scaling(result: ScalingResult) -> None:
    """Print the runs, the law, and what was predicted."""
    fit = result.fit
    table = plain_table(
        ("size", "parameters", "tokens", "seed", "FLOPs", "bits per byte", "law of all runs", "run"),
        words=("size", "run"),
    )
    for run in sorted(fit.runs, key=lambda run: (run.parameters, run.tokens, run.seed)):
        table.add_row(
            run.variant, amount(run.parameters), amount(run.tokens), str(run.seed), f"{run.flops:.2e}",
            f"{run.bits_per_byte:.4f}", f"{fit.expected(run.parameters, run.tokens).value:.4f}", run.run_id,
        )  # fmt: skip
    console.print(table)
    console.print("L(N, D) = E + A / N^alpha + B / D^beta; N parameters with embedding, D tokens; 95 % intervals:")
    for name, statistic in CONSTANTS.items():
        value, low, high = fit.bootstrap.interval(statistic)
        console.print(f"  {name} {value:.3g} ({low:.3g} to {high:.3g})")
    for row in fit.predicted:
        inside = "inside the interval" if row.is_inside else "outside the interval"
        console.print(
            f"{fit.held_out}, {row.condition}, seed {row.seed}: predicted from the other sizes {row.expected:.4f} "
            f"({row.low:.4f} to {row.high:.4f}), measured {row.measured:.4f}: {100 * row.error:+.2f} %, {inside}"
        )
    for sentence in fit.doubts:
        console.print(f"note: {sentence}")
    for cell in result.refused:
        console.print(f"refused: {cell.cell.label}: {cell.refused}")
    console.print(f"picture: {result.location}")


def print_answers(answers: Sequence[Proposal]) -> None:
    """Print the run that is proposed for each budget."""
    for proposal in answers:
        _print_answer(*proposal)


def _print_answer(proposed: Answer, location: str, placement: Placement | None) -> None:
    shape = proposed.shape
    console.print(
        f"budget {proposed.budget} ({proposed.flops:.3g} FLOPs): {shape['layers']} layers, width {shape['width']}, "
        f"{shape['heads']} heads, {amount(proposed.parameters)} parameters (best size "
        f"{amount(proposed.least_parameters)} to {amount(proposed.most_parameters)}), {amount(proposed.tokens)} "
        f"tokens, batch {proposed.batch_tokens:,} tokens, learning rate {proposed.learning_rate:.3g}; expected "
        f"{proposed.expected.value:.3f} bits per byte ({proposed.expected.low:.3f} to {proposed.expected.high:.3f})"
    )
    if placement:
        console.print(f"  {placement_line(placement)}")
    for sentence in proposed.notes:
        console.print(f"  note: {sentence}")
    console.print(f"  train it: headrace run {location}")


def scaling_json(result: ScalingResult, answers: Sequence[Proposal]) -> dict[str, Any]:
    """The object that `--json` prints."""
    fit = result.fit
    intervals = {name: fit.bootstrap.interval(statistic) for name, statistic in CONSTANTS.items()}
    return {
        "fit": fit.model_dump(mode="json", exclude={"draws", "residuals"}),
        "constants": {
            name: dict(zip(("value", "low", "high"), values, strict=True)) for name, values in intervals.items()
        },
        "predicted": [row.model_dump() | {"error": row.error, "inside": row.is_inside} for row in fit.predicted],
        "refused": [{"run": row.cell.label, "why": row.refused} for row in result.refused],
        "answers": [
            asdict(proposed)
            | {
                "expected": proposed.expected._asdict(),
                "settings": proposed.settings,
                "config": location,
                "cluster": placement and placement_json(placement),
            }
            for proposed, location, placement in answers
        ],
        "page": result.location,
    }
