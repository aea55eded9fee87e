"""All tasks on one model, and the tables of what came out; for the stage and for `headrace evaluate`.

- `Steps`: progress over tasks by models
- `measure_model`, `measure_baselines`: results of every task
- `result_tables`: the tables `scores` and `items`
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pyarrow as pa

from data_schemas.tables import ITEMS, SCORES
from infra.progress import ProgressListener
from infra.store.filesystem import Folder
from stages.benchmark.results import TaskResult, unsupported_model
from stages.benchmark.task import BenchmarkTask, EvaluatedModel, TaskContext, TransformersCheckpoint


class Steps:
    """Progress: tasks by models."""

    def __init__(
        self, listener: ProgressListener, phase: Callable[[str], AbstractContextManager[None]], total: int
    ) -> None:
        """Begin.

        Args:
            listener: hears of it.
            phase: times a step by its kind.
            total: steps there will be.
        """
        self._listener, self._phase, self._total, self._done = listener, phase, total, 0

    @contextmanager
    def step(self, phase: str, what: str) -> Iterator[Callable[[int, int], None]]:
        """One task on one model; yields what hears of its requests."""

        def advanced(done: int, of: int) -> None:
            share = done / max(of, 1)
            self._listener.advanced("tasks", self._done + share, self._total, f"{phase}, {what}")

        advanced(0, 1)
        with self._phase(phase):
            yield advanced
        self._done += 1

    def finished(self) -> None:
        """All is done."""
        self._listener.advanced("tasks", self._total, self._total, "all tasks")


def measure_model(
    model: EvaluatedModel, tasks: Sequence[BenchmarkTask], seed: int, work: Folder, steps: Steps
) -> list[TaskResult]:
    """Every task on one model.

    Args:
        model: what is measured.
        tasks: what is asked.
        seed: of drawn items, of the bootstrap and of sampling.
        work: for answers; what is there already is not computed again.
        steps: one for each task.

    Raises:
        InputDataError: where data that are there cannot be read.
    """
    results: list[TaskResult] = []
    for task in tasks:
        with steps.step(task.kind, model.name) as advanced:
            if task.needs_network and isinstance(model, TransformersCheckpoint):
                results += [unsupported_model(task.labeled(name), model.name) for name in task.names()]
            else:
                results += _labelled(task, task.measure(model, TaskContext(seed, work, advanced)))
    return results


def measure_baselines(tasks: Sequence[BenchmarkTask], seed: int, work: Folder | None) -> list[TaskResult]:
    """Scores without a network, and rows that say what could not be run."""
    return [result for task in tasks for result in _labelled(task, task.baselines(TaskContext(seed, work)))]


def _labelled(task: BenchmarkTask, results: Sequence[TaskResult]) -> list[TaskResult]:
    return [TaskResult(_named(task, result.score), [_named(task, item) for item in result.items]) for result in results]


def _named(task: BenchmarkTask, row: dict[str, Any]) -> dict[str, Any]:
    return row | {"task": task.labeled(row["task"])}


def result_tables(results: Sequence[TaskResult]) -> tuple[pa.Table, pa.Table]:
    """`scores`, rows of one task together in the order of their first rows; and `items`."""
    scores = [result.score for result in results]
    tasks = list(dict.fromkeys(row["task"] for row in scores))
    items = [{**item, "metric": result.score["metric"]} for result in results for item in result.items]
    in_order = sorted(scores, key=lambda row: tasks.index(row["task"]))
    return pa.Table.from_pylist(in_order, SCORES), pa.Table.from_pylist(items, ITEMS)
