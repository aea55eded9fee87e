"""Scores of GLUE from labels and predictions, for both protocols.

- `score`: a metric with its bootstrap samples; `score_result`: its row
- `average`: the mean over tasks; `average_result`: its row
- `majority_class`, `random_choice`: scores of baselines

The average is that of the benchmark (Wang et al. 2019, 1804.07461, section 3): the mean over nine tasks, after that
over the metrics of a task. With fewer tasks it is not a GLUE score, which the row's note states.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stages.benchmark.metrics import METRICS, Values, metric_draws
from stages.benchmark.results import TaskResult, score_row
from stages.benchmark.tasks.glue.data import SETS_BY_NAME, GlueSet
from stages.common.statistics import Interval, percentile_interval, wilson_interval

ZERO_CORRELATIONS = {"Matthews correlation": 0.0, "Pearson correlation": 0.0, "Spearman correlation": 0.0}
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
    """Draws of the metric (`metric_draws`)."""
    items: int


class Average(NamedTuple):
    """The mean over the tasks that have scores."""

    value: float
    metric: str
    note: str | None
    sets: list[tuple[str, ...]]
    """Sets of each averaged task."""


def score(dataset: GlueSet, metric: str, labels: Values, predicted: Values, seed: int) -> Score:
    """A metric of predictions; labels and predictions are (items,), class indices or scores."""
    # Every set has its own seed, so that the samples are independent in the average.
    set_seed = seed + 1000 * list(SETS_BY_NAME).index(dataset.name)
    draws = metric_draws(metric, labels, predicted, len(dataset.labels), set_seed)
    return Score(metric, METRICS[metric](labels, predicted), draws, len(labels))


def score_result(
    task: str, model: str, score: Score, protocol: str | None, note: str | None, items: list[dict[str, Any]]
) -> TaskResult:
    """The row of a score, with its items."""
    # If all or no items are correct, the bootstrap samples are all equal.
    constant = score.metric == "accuracy" and score.value in (0, 1)
    interval = (
        wilson_interval(round(score.value * score.items), score.items)
        if constant
        else _interval(score.value, score.draws)
    )
    return TaskResult(score_row(task, model, score.metric, interval, score.items, True, protocol, note), items)


def average(values: Mapping[str, Sequence[float]]) -> Average | None:
    """Mean over the tasks whose sets all have values, after the mean over the metrics of each task."""
    present = {task: names for task, names in AVERAGED_SETS.items() if all(name in values for name in names)}
    if not present:
        return None
    task_scores = [np.mean([value for name in names for value in values[name]]) for names in present.values()]
    absent = [task for task in AVERAGED_SETS if task not in present]
    metric = "mean of nine tasks" if not absent else f"mean of {len(present)} tasks"
    note = f"no GLUE score, which needs all nine tasks: {', '.join(absent)} not run" if absent else None
    return Average(float(np.mean(task_scores)), metric, note, list(present.values()))


def average_result(
    task: str, model: str, scores: Mapping[str, Sequence[Score]], protocol: str | None
) -> list[TaskResult]:
    """The row of the average; none if no task is complete."""
    mean = average({name: [score.value for score in set_scores] for name, set_scores in scores.items()})
    if not mean:
        return []
    draws = [np.mean([score.draws for name in names for score in scores[name]], axis=0) for names in mean.sets]
    interval = _interval(mean.value, np.mean(draws, axis=0))
    items = sum(scores[name][0].items for names in mean.sets for name in names)
    return [TaskResult(score_row(task, model, mean.metric, interval, items, True, protocol, mean.note), [])]


def _interval(value: float, draws: Values) -> Interval:
    """The percentile interval, extended to the value: draws of a posterior never reach a value at the scale's end."""
    interval = percentile_interval(value, draws)
    return Interval(value, min(interval.low, value), max(interval.high, value))


def majority_class(dataset: GlueSet, labels: Values, training_labels: Values) -> dict[str, float]:
    """Scores of predicting the most common training label for all items; the correlations of a constant are 0."""
    values, counts = np.unique(training_labels, return_counts=True)
    constant = np.full_like(labels, values[counts.argmax()])
    return {metric: METRICS[metric](labels, constant) for metric in dataset.metrics}


def random_choice(dataset: GlueSet, labels: Values) -> dict[str, float]:
    """Expected scores of uniformly random labels: accuracy 1/k, no correlation; F1 of the expected counts."""
    share = float((labels == 1).mean())
    expected = ZERO_CORRELATIONS | {"accuracy": 1 / max(len(dataset.labels), 1), "F1": share / (share + 0.5)}
    return {metric: expected[metric] for metric in dataset.metrics}


def is_correct(dataset: GlueSet, predicted: float, label: float) -> float:
    """1 for the correct class, or for a score that rounds to the correct integer; otherwise 0."""
    return float(predicted == label if dataset.labels else round(predicted) == round(label))
