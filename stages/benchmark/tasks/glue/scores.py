"""From labels and predictions to rows of the result, for both protocols of GLUE.

- `score`: a metric with its bootstrap draws; `score_result`: its row
- `average`: over the benchmark's tasks; `average_result`: its row
- `majority`, `guess`: what a constant and random choice give

The average is the benchmark's own (Wang et al. 2019, 1804.07461, section 3): over nine tasks, the metrics of a task
averaged first. With fewer tasks it is no GLUE score, and the row says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stages.benchmark.metrics import METRICS, Values
from stages.benchmark.results import TaskResult, score_row
from stages.benchmark.tasks.glue.data import BY_NAME, GlueSet
from stages.common.statistics import bootstrap_draws, percentile_interval, wilson_interval

GUESSED = {"Matthews correlation": 0.0, "Pearson correlation": 0.0, "Spearman correlation": 0.0}
AVERAGED_SETS: Mapping[str, tuple[str, ...]] = {
    "CoLA": ("CoLA",), "SST-2": ("SST-2",), "MRPC": ("MRPC",), "QQP": ("QQP",), "STS-B": ("STS-B",),
    "MNLI": ("MNLI matched", "MNLI mismatched"), "QNLI": ("QNLI",), "RTE": ("RTE",), "WNLI": ("WNLI",),
}  # fmt: skip
"""Task -> sets whose metrics are averaged to the score of the task; the GLUE average is the mean of the nine scores."""


class Score(NamedTuple):
    """A metric on a set's items."""

    metric: str
    value: float
    draws: Values
    """Of the bootstrap."""
    items: int


class Average(NamedTuple):
    """Over those tasks that have scores."""

    value: float
    metric: str
    note: str | None
    sets: list[tuple[str, ...]]
    """Of each task that is in it."""


def score(of: GlueSet, metric: str, labels: Values, predicted: Values, seed: int) -> Score:
    """A metric of predictions; both (items,), classes by their places, or numbers of a scale."""
    # A seed of its own for every set: in the average their samples are independent.
    draws = bootstrap_draws(METRICS[metric], (labels, predicted), seed + 1000 * list(BY_NAME).index(of.name))
    return Score(metric, METRICS[metric](labels, predicted), draws, len(labels))


def score_result(
    task: str, model: str, one: Score, protocol: str | None, note: str | None, items: list[dict[str, Any]]
) -> TaskResult:
    """The score's row, with the items behind it."""
    # Where all or none are right, all draws are alike.
    alike = one.metric == "accuracy" and one.value in (0, 1)
    interval = (
        wilson_interval(round(one.value * one.items), one.items) if alike else percentile_interval(one.value, one.draws)
    )
    return TaskResult(score_row(task, model, one.metric, interval, one.items, True, protocol, note), items)


def average(values: Mapping[str, Sequence[float]]) -> Average | None:
    """Of the tasks whose sets all have values: metrics of a task first, then tasks."""
    present = {task: names for task, names in AVERAGED_SETS.items() if all(name in values for name in names)}
    if not present:
        return None
    of_tasks = [np.mean([value for name in names for value in values[name]]) for names in present.values()]
    absent = [task for task in AVERAGED_SETS if task not in present]
    metric = "mean of nine tasks" if not absent else f"mean of {len(present)} tasks"
    note = f"no GLUE score, which needs all nine tasks: {', '.join(absent)} not run" if absent else None
    return Average(float(np.mean(of_tasks)), metric, note, list(present.values()))


def average_result(
    task: str, model: str, scores: Mapping[str, Sequence[Score]], protocol: str | None
) -> list[TaskResult]:
    """The average's row, where any task is whole."""
    found = average({name: [one.value for one in rows] for name, rows in scores.items()})
    if not found:
        return []
    draws = [np.mean([one.draws for name in names for one in scores[name]], axis=0) for names in found.sets]
    interval = percentile_interval(found.value, np.mean(draws, axis=0))
    items = sum(scores[name][0].items for names in found.sets for name in names)
    return [TaskResult(score_row(task, model, found.metric, interval, items, True, protocol, found.note), [])]


def majority(of: GlueSet, labels: Values, known: Values) -> dict[str, float]:
    """The commonest label of `known` for all items; a constant has no correlation with anything."""
    values, counts = np.unique(known, return_counts=True)
    constant = np.full_like(labels, values[counts.argmax()])
    return {metric: METRICS[metric](labels, constant) for metric in of.metrics}


def guess(of: GlueSet, labels: Values) -> dict[str, float]:
    """What all labels with equal chances give: 1/k right, no correlation; F1 of expected counts."""
    share = float((labels == 1).mean())
    chances = GUESSED | {"accuracy": 1 / max(len(of.labels), 1), "F1": share / (share + 0.5)}
    return {metric: chances[metric] for metric in of.metrics}


def is_right(of: GlueSet, predicted: float, label: float) -> float:
    """1 for the right class, or on a scale for the right whole number; else 0."""
    return float(predicted == label if of.labels else round(predicted) == round(label))
