"""Baselines of fine-tuning on GLUE: a linear model of words, the majority class, random choice.

- `TrainedSet`: a set with the training items for it
- `tf_idf_results`: a linear model of the same training items (`tf_idf.py`)
- `guess_results`: baselines that do not read the texts
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
    is_correct,
    majority_class,
    random_choice,
    score,
    score_result,
)
from stages.benchmark.tasks.glue.tf_idf import NAME, PROTOCOL, REGRESSION_NAME, tf_idf_predictions
from stages.benchmark.tasks.glue.training import TrainingSet

Item = dict[str, Any]
TrainedSet = tuple[GlueSet, TrainingSet, Sequence[Item]]
"""(set, training items for it, scored items)."""
TaskName = Callable[[GlueSet], str]


def tf_idf_results(
    trained_sets: Sequence[TrainedSet], task: TaskName, average_task: str, seed: int
) -> list[TaskResult]:
    """All metrics of all sets with interval and items, then the average."""
    results: list[TaskResult] = []
    scores: dict[str, list[Score]] = {}
    for dataset, training, items in trained_sets:
        name = NAME if dataset.labels else REGRESSION_NAME
        labels = _labels(items)
        training_texts, texts = ([sentences(item) for item in some_items] for some_items in (training.items, items))
        predicted = tf_idf_predictions(training_texts, training.labels, texts, not dataset.labels)
        scores[dataset.name] = [score(dataset, metric, labels, predicted, seed) for metric in dataset.metrics]
        rows = [
            item_row(
                task(dataset),
                item["id"],
                name,
                {"predicted": prediction, "label": label},
                is_correct(dataset, prediction, label),
                1.0,
            )
            for item, prediction, label in zip(items, predicted.tolist(), labels.tolist(), strict=True)
        ]
        for result in scores[dataset.name]:
            results.append(score_result(task(dataset), name, result, PROTOCOL, training.note(), rows))
    return [*results, *average_result(average_task, NAME, scores, PROTOCOL)]


def guess_results(trained_sets: Sequence[TrainedSet], task: TaskName, average_task: str) -> list[TaskResult]:
    """The majority class of the training items and random choice, per set and metric; then their averages."""
    results: list[TaskResult] = []
    values: dict[str, dict[str, list[float]]] = {"majority class": {}, "random choice": {}}
    for dataset, training, items in trained_sets:
        labels = _labels(items)
        scores = (majority_class(dataset, labels, training.labels), random_choice(dataset, labels))
        for (name, by_set), by_metric in zip(values.items(), scores, strict=True):
            by_set[dataset.name] = list(by_metric.values())
            results += [single_value(task(dataset), name, metric, value) for metric, value in by_metric.items()]
    for name, by_set in values.items():
        if mean := average(by_set):
            results.append(single_value(average_task, name, mean.metric, mean.value, note=mean.note))
    return results


def _labels(items: Sequence[Item]) -> Values:
    return np.array([item["label"] for item in items], dtype=np.float64)
