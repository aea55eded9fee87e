"""All tasks on one model, and the tables of the results; used by the stage and by `headrace evaluate`.

- `TaskProgress`: progress over tasks and models
- `measure_model`, `measure_baselines`: results of every task
- `item_texts`: texts of all items, for the search in the training text
- `result_tables`: the tables SCORES and ITEMS
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


class TaskProgress:
    """Progress and timing of steps, each a task on a model."""

    def __init__(
        self, listener: ProgressListener, phase: Callable[[str], AbstractContextManager[None]], total: int
    ) -> None:
        """Start with no step done.

        Args:
            listener: receives the progress.
            phase: times a step under its name.
            total: number of steps.
        """
        self._listener, self._phase, self._total, self._done = listener, phase, total, 0

    @contextmanager
    def step(self, phase: str, subject: str) -> Iterator[Callable[[int, int], None]]:
        """Run one step; yields the progress callback (requests answered, all requests) within it."""

        def advanced(done: int, total: int) -> None:
            fraction = done / max(total, 1)
            self._listener.advanced("tasks", self._done + fraction, self._total, f"{phase}, {subject}")

        advanced(0, 1)
        with self._phase(phase):
            yield advanced
        self._done += 1

    def finished(self) -> None:
        """Report that all steps are done."""
        self._listener.advanced("tasks", self._total, self._total, "all tasks")


def measure_model(
    model: EvaluatedModel, tasks: Sequence[BenchmarkTask], seed: int, work: Folder, progress: TaskProgress
) -> list[TaskResult]:
    """Results of every task on one model.

    Args:
        model: the evaluated model.
        tasks: the tasks.
        seed: seed of sampled items, of the bootstrap and of sampled generation.
        work: folder of answers; those already in it are not computed again.
        progress: one step per task.

    Raises:
        InputDataError: if data of a task cannot be read.
    """
    results: list[TaskResult] = []
    for task in tasks:
        with progress.step(task.kind, model.name) as advanced:
            if task.needs_network and isinstance(model, TransformersCheckpoint):
                results += [unsupported_model(task.labeled(name), model.name) for name in task.names()]
            else:
                results += _labeled(task, task.measure(model, TaskContext(seed, work, advanced)))
    return results


def measure_baselines(tasks: Sequence[BenchmarkTask], seed: int, work: Folder | None) -> list[TaskResult]:
    """Scores without a network, and rows for the scores that could not be measured."""
    return [result for task in tasks for result in _labeled(task, task.baselines(TaskContext(seed, work)))]


def item_texts(tasks: Sequence[BenchmarkTask], seed: int) -> dict[str, dict[str, list[str]]]:
    """Task -> item -> texts of the item, over all tasks."""
    return {task.labeled(name): items for task in tasks for name, items in task.texts(seed).items()}


def _labeled(task: BenchmarkTask, results: Sequence[TaskResult]) -> list[TaskResult]:
    """The results with the task's label in the column `task`."""

    def labeled(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"task": task.labeled(row["task"])}

    return [TaskResult(labeled(result.score), [labeled(item) for item in result.items]) for result in results]


def result_tables(results: Sequence[TaskResult]) -> tuple[pa.Table, pa.Table]:
    """(scores, items); the rows of a task are together, tasks in the order of their first rows."""
    scores = [result.score for result in results]
    tasks = list(dict.fromkeys(row["task"] for row in scores))
    items = [{**item, "metric": result.score["metric"]} for result in results for item in result.items]
    by_task = sorted(scores, key=lambda row: tasks.index(row["task"]))
    return pa.Table.from_pylist(by_task, SCORES), pa.Table.from_pylist(items, ITEMS)
