"""`headrace compare`: two runs, or a run before and after compression, item by item.

- `compare`: the paired difference and its interval, for every score that both sides have on the same items
- `print_comparison`, `as_json`: the output of the command
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from data_schemas.artifact_kinds import RESULTS
from data_schemas.errors import NotFoundError
from data_schemas.manifest import RunRecord
from flows.console import console, plain_table
from infra.store.artifacts import ArtifactStore
from stages.benchmark.metrics import METRICS, paired_metric_interval
from stages.benchmark.tasks.few_shot_images.episodes import OVER_EPISODES
from stages.common.statistics import Interval, paired_difference, student_interval

MODELS = ("pretrained", "compressed")
SEED = 0
STATISTICS = frozenset(METRICS) - {"accuracy"}
COLUMNS = ("task", "metric", "model", "item", "numerator", "denominator", "output")
RENAMED_TASKS = {"memorisation": "memorization"}
"""Task in results of earlier versions -> its name now."""
CORRECT_ANSWERS = ("label", "accepted")
"""Fields of an item's output that hold the correct answer."""


@dataclass(frozen=True)
class Metric:
    """A score of a model, and the items that it is computed from."""

    value: float
    higher_is_better: bool
    protocol: str | None
    items: dict[str, tuple[float, float, Any]]
    """Item -> (numerator, denominator, correct answer or None if the item records none)."""
    answers: dict[str, tuple[float, float]]
    """Item -> (label, prediction), for scores that are not means over items, such as F1 and correlations."""

    @property
    def is_over_episodes(self) -> bool:
        """Whether items are queries of episodes; queries of one episode are not independent."""
        return (self.protocol or "").endswith(OVER_EPISODES)

    @property
    def is_mean(self) -> bool:
        """Whether the score is the sum of its items' numerators over that of their denominators."""
        numerators, denominators, _ = zip(*self.items.values(), strict=True)
        return math.isclose(math.fsum(numerators) / math.fsum(denominators), self.value, rel_tol=1e-6, abs_tol=1e-9)


@dataclass(frozen=True)
class Side:
    """A model of a run."""

    run_id: str
    model: str
    metrics: dict[tuple[str, str], Metric]
    """(task, metric) -> score."""

    @property
    def label(self) -> str:
        """`compressed of quiet-otter-3f9a`."""
        return f"{self.model} of {self.run_id}"


@dataclass(frozen=True)
class Difference:
    """A score of the second side minus that of the first, over the same items."""

    task: str
    metric: str
    first: str
    second: str
    items: int
    first_value: float
    second_value: float
    difference: float
    low: float
    high: float
    """Upper end of the 95 % interval of the difference: bootstrap over items, or Student's t over episodes."""
    excludes_zero: bool
    second_is: str
    """`better` or `worse` if the interval excludes 0, else `no clear difference`."""


@dataclass(frozen=True)
class NotCompared:
    """A score that one side or both have and that was not compared."""

    task: str
    metric: str
    first: str
    second: str
    why: str


def compare(
    store_url: str, records: Sequence[RunRecord], models: Sequence[str]
) -> tuple[list[Difference], list[NotCompared]]:
    """Compare each model between two runs, and within each run the first model with the others.

    Args:
        store_url: the store with the runs.
        records: one or two runs.
        models: names of models as in the score tables.

    Raises:
        NotFoundError: if a run has no benchmark results, no run has a model, or there is only one model of one run.
        ContractError: if the results are of an earlier version.
    """
    runs = {record.run_id: _sides(store_url, record) for record in records}
    known = {model for sides in runs.values() for model in sides}
    for model in models:
        if model not in known:
            raise NotFoundError(
                f"no scores of {model!r} in {' or '.join(runs)}; available models: {', '.join(sorted(known))}"
            )
    pairs = list(_pairs(list(runs.values()), models))
    if not pairs:
        raise NotFoundError(
            f"nothing to compare: name a second run, or a second model of one; {' and '.join(runs)} "
            f"{'have' if len(runs) > 1 else 'has'} scores of: {', '.join(sorted(known))}"
        )
    rows = [row for first, second in pairs for row in _differences(first, second)]
    return (
        [row for row in rows if isinstance(row, Difference)],
        [row for row in rows if isinstance(row, NotCompared)],
    )


def _pairs(runs: Sequence[dict[str, Side]], models: Sequence[str]) -> Iterator[tuple[Side, Side]]:
    for model in models:
        sides = [run[model] for run in runs if model in run]
        if len(sides) == 2:
            yield sides[0], sides[1]
    for run, other in product(runs, models[1:]):
        if models[0] in run and other in run:
            yield run[models[0]], run[other]


def _sides(store_url: str, record: RunRecord) -> dict[str, Side]:
    outcome = record.stages.get("benchmark")
    if outcome is None:
        raise NotFoundError(
            f"run {record.run_id} has no benchmark results (it has: {', '.join(record.stages) or 'no stage'}); "
            "run its config to the last stage, then compare"
        )
    artifact = ArtifactStore(store_url).open(outcome.artifact)
    artifact.check_contract(RESULTS, "compare")
    items: dict[tuple[str, str, str], dict[str, tuple[float, float, Any]]] = {}
    answers: dict[tuple[str, str, str], dict[str, tuple[float, float]]] = {}
    for row in artifact.read_table("items.parquet").select(COLUMNS).to_pylist():
        name = _score_name(row)
        output = json.loads(row["output"])
        correct = next((output[key] for key in CORRECT_ANSWERS if key in output), None)
        items.setdefault(name, {})[row["item"]] = (row["numerator"], row["denominator"], correct)
        if row["metric"] in STATISTICS and {"label", "predicted"} <= output.keys():
            answers.setdefault(name, {})[row["item"]] = (output["label"], output["predicted"])
    sides: dict[str, Side] = {}
    for row in artifact.read_table("scores.parquet").to_pylist():
        if row["value"] is None:  # not measured
            continue
        side = sides.setdefault(row["model"], Side(record.run_id, row["model"], {}))
        name = _score_name(row)
        side.metrics[name[1:]] = Metric(
            row["value"], row["higher_is_better"], row["protocol"], items.get(name, {}), answers.get(name, {})
        )
    return sides


def _score_name(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["model"], RENAMED_TASKS.get(row["task"], row["task"]), row["metric"]


def _differences(first: Side, second: Side) -> Iterator[Difference | NotCompared]:
    for task, metric in dict.fromkeys([*first.metrics, *second.metrics]):
        names = (task, metric, first.label, second.label)
        why = _obstacle(first, second, (task, metric))
        if why:
            yield NotCompared(*names, why)
            continue
        score, other = first.metrics[task, metric], second.metrics[task, metric]
        interval = _paired(score, other, metric)
        excludes_zero = interval.low > 0 or interval.high < 0
        direction = "better" if (interval.value > 0) is score.higher_is_better else "worse"
        yield Difference(
            *names, len(score.items), score.value, other.value, *interval, excludes_zero,
            direction if excludes_zero else "no clear difference",
        )  # fmt: skip


def _obstacle(first: Side, second: Side, name: tuple[str, str]) -> str | None:
    """Why a score cannot be compared item by item; None if it can."""
    for side, other in ((first, second), (second, first)):
        if name not in side.metrics:
            return f"only {other.label} has it"
    score, other_score = first.metrics[name], second.metrics[name]
    if not score.items or not other_score.items:
        return "its items were not recorded"
    only = [len(score.items.keys() - other_score.items), len(other_score.items.keys() - score.items)]
    if any(only):
        shared = len(score.items.keys() & other_score.items)
        return f"different items: {shared} are in both, {only[0]} in the first only, {only[1]} in the second only"
    if not _have_answers(score, other_score) and not (score.is_mean and other_score.is_mean):
        return "the score is not a mean over its items"
    if score.is_over_episodes and len({_episode(item) for item in score.items}) < 2:
        return "a single episode has no interval"
    weights = [(score.items[item][1], other_score.items[item][1]) for item in score.items]
    different = sum(weight != other_weight for weight, other_weight in weights)
    if different:
        return f"{different} of {len(weights)} items differ in size (different text or tokens)"
    # A model and a baseline of one run always have different protocols.
    return _different_settings(score, other_score) if first.model == second.model else None


def _different_settings(score: Metric, other: Metric) -> str | None:
    """A difference between two runs' measurements of the same score; None if only the model differs."""
    if score.protocol != other.protocol:
        return f"different protocols: {score.protocol} in the first, {other.protocol} in the second"
    answers = sum(score.items[item][2] != other.items[item][2] for item in score.items)
    if answers:
        return f"{answers} of {len(score.items)} items have different correct answers (different data, same names)"
    return None


def _have_answers(first: Metric, second: Metric) -> bool:
    return first.answers.keys() == first.items.keys() and second.answers.keys() == second.items.keys()


def _paired(first: Metric, second: Metric, name: str) -> Interval:
    """The second score minus the first; resamples episodes if items are queries that share their examples."""
    names = sorted(first.items)
    if _have_answers(first, second):
        columns = np.array([(*first.answers[item], second.answers[item][1]) for item in names])
        return paired_metric_interval(name, columns[:, 0], columns[:, 2], columns[:, 1], SEED)
    scores, others = (np.array([side.items[item][0] for item in names]) for side in (first, second))
    if first.is_over_episodes:
        episodes = np.array([_episode(item) for item in names])
        return student_interval([(others - scores)[episodes == episode].mean() for episode in np.unique(episodes)])
    return paired_difference(others, scores, [first.items[item][1] for item in names], SEED)


def _episode(item: str) -> str:
    return item.partition("/")[0]


def print_comparison(differences: Sequence[Difference], not_compared: Sequence[NotCompared]) -> None:
    """A table for each pair, then what was not compared."""
    rows: list[Difference | NotCompared] = [*differences, *not_compared]
    for first, second in dict.fromkeys((row.first, row.second) for row in rows):
        console.print(f"\n{second}, against {first}", style="bold")
        table = plain_table(
            ("task", "metric", "items", "first", "second", "difference", "95 % interval", "second is"),
            words=("task", "metric", "second is"),
        )
        for row in differences:
            if (row.first, row.second) == (first, second):
                table.add_row(
                    row.task, row.metric, f"{row.items}", f"{row.first_value:.3f}", f"{row.second_value:.3f}",
                    f"{row.difference:+.3f}", f"{row.low:+.3f} to {row.high:+.3f}", row.second_is,
                )  # fmt: skip
        console.print(table if table.rows else "no score has the same items in both")
        for missing in not_compared:
            if (missing.first, missing.second) == (first, second):
                console.print(f"not compared: {missing.task}, {missing.metric}: {missing.why}")


def as_json(differences: Sequence[Difference], not_compared: Sequence[NotCompared]) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {"differences": [asdict(row) for row in differences], "not_compared": [asdict(row) for row in not_compared]}
