"""What a trained network is held against on GLUE: a linear model of words, the commonest class, random choice.

- `of_tf_idf`: learnt from the same training items (`tf_idf.py`)
- `guessed`: what needs no text
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stages.benchmark.metrics import Values
from stages.benchmark.results import TaskResult, item_row, single_value
from stages.benchmark.tasks.glue.data import GlueSet, sentences
from stages.benchmark.tasks.glue.scores import (
    Score,
    average,
    average_result,
    guess,
    is_right,
    majority,
    score,
    score_result,
)
from stages.benchmark.tasks.glue.tf_idf import NAME, NAME_OF_SCALE, PROTOCOL, tf_idf_predictions
from stages.benchmark.tasks.glue.training import TrainingSet

Item = dict[str, Any]
Learnt = tuple[GlueSet, TrainingSet, Sequence[Item]]
"""A set, what is learnt from for it, and the items that are asked."""
TaskName = Callable[[GlueSet], str]


def of_tf_idf(learnt: Sequence[Learnt], task: TaskName, average_task: str, seed: int) -> list[TaskResult]:
    """Every metric of every set with its interval and items, then the average."""
    results: list[TaskResult] = []
    scores: dict[str, list[Score]] = {}
    for of, training, items in learnt:
        name = NAME if of.labels else NAME_OF_SCALE
        labels = _labels(items)
        known = [sentences(item) for item in training.items]
        predicted = tf_idf_predictions(known, training.labels, [sentences(item) for item in items], not of.labels)
        scores[of.name] = [score(of, metric, labels, predicted, seed) for metric in of.metrics]
        rows = [
            item_row(
                task(of), item["id"], name, {"predicted": guessed, "label": label}, is_right(of, guessed, label), 1.0
            )
            for item, guessed, label in zip(items, predicted.tolist(), labels.tolist(), strict=True)
        ]
        for one in scores[of.name]:
            results.append(score_result(task(of), name, one, PROTOCOL, training.note(), rows))
    return [*results, *average_result(average_task, NAME, scores, PROTOCOL)]


def guessed(learnt: Sequence[Learnt], task: TaskName, average_task: str) -> list[TaskResult]:
    """The commonest class of the training items, and all classes with equal chances; then their averages."""
    results: list[TaskResult] = []
    values: dict[str, dict[str, list[float]]] = {"majority class": {}, "random choice": {}}
    for of, training, items in learnt:
        labels = _labels(items)
        rules = (majority(of, labels, training.labels), guess(of, labels))
        for (name, by_set), by_metric in zip(values.items(), rules, strict=True):
            by_set[of.name] = list(by_metric.values())
            results += [single_value(task(of), name, metric, value) for metric, value in by_metric.items()]
    for name, by_set in values.items():
        if found := average(by_set):
            results.append(single_value(average_task, name, found.metric, found.value, note=found.note))
    return results


def _labels(items: Sequence[Item]) -> Values:
    return np.array([item["label"] for item in items], dtype=np.float64)
