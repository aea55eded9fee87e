"""GLUE by likelihood: the most likely of several verbal answers is predicted, zero- or few-shot.

- `GlueTask`: config and measurement
- `predictions`: predictions from the likelihoods of the answers
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from stages.benchmark.data_files import OWN_DATA, find_file, missing_data_message, sample_items
from stages.benchmark.metrics import Values
from stages.benchmark.remote_files import local_folder
from stages.benchmark.task import BenchmarkTask, EvaluatedModel, TaskContext
from stages.benchmark.tasks.glue.data import SETS, SETS_BY_NAME, GlueSet, check_set_names, read_examples, sentences

if TYPE_CHECKING:
    from stages.benchmark.harness.run_task import ItemResponses
    from stages.benchmark.results import TaskResult
    from stages.benchmark.tasks.glue.scores import Score

ITEM_BYTES, ITEM_TOKENS, MAX_ITEMS = 150, 90, 10_000
AVERAGE = "GLUE average"


class GlueTask(BenchmarkTask):
    """The tasks of GLUE, zero- or few-shot by likelihood, on the development sets."""

    kind: Literal["glue"] = "glue"
    path: str | None = Field(
        None,
        description="folder with GLUE's own folders, such as CoLA/dev.tsv; by default a few items of Headrace's own",
    )
    sets: tuple[str, ...] = Field(tuple(SETS_BY_NAME), description="sets to measure", min_length=1)
    examples: int = Field(
        0, ge=0, description="few-shot examples, training items with their answers, before each question"
    )
    limit: int | None = Field(None, gt=0, description="limit of a set's items, sampled by the seed; by default all")

    _check_sets = field_validator("sets")(check_set_names)

    @property
    def folder(self) -> Path:
        """Folder of the sets."""
        return local_folder(self.path) if self.path else OWN_DATA / "glue"

    @property
    def protocol(self) -> str:
        """Prompting, as stated in the results."""
        return f"likelihood, {self.examples} examples"

    def names(self) -> list[str]:
        """Names of the sets, such as `GLUE CoLA`, and of the average."""
        return [*(f"GLUE {name}" for name in self.sets), AVERAGE]

    def tokens(self) -> int:
        """Estimated from the sizes of the files; an answer adds one or two tokens to its question."""
        paths = (find_file(self.folder / dataset.folder, *dataset.files) for dataset in self._sets())
        items = [min(self.limit or MAX_ITEMS, path.stat().st_size // ITEM_BYTES + 1) for path in paths if path]
        return sum(items) * ITEM_TOKENS * (1 + self.examples)

    def data_files(self) -> list[Path]:
        """Development and training files of every set."""
        paths = dict.fromkeys(
            self.folder / folder / f"{name}{ending}"
            for dataset in self._sets()
            for folder, names in (
                (dataset.folder, dataset.files),
                (_source(dataset).folder, _source(dataset).train if self.examples else ()),
            )
            for name in names
            for ending in ("", ".gz")
        )
        return list(paths)

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """All sets that have data, then the average."""
        from stages.benchmark.harness.run_task import harness_model, run_task
        from stages.benchmark.tasks.glue.scores import average_result, score_result

        results: list[TaskResult] = []
        scores: dict[str, list[Score]] = {}
        lm = harness_model(model, context)
        for dataset in self._with_data():
            items, skipped = self._items(dataset, context.seed)
            responses = run_task(dataset.harness_task, items, self._shots(dataset, context.seed), lm)
            scores[dataset.name] = _scores(dataset, responses, context.seed)
            note = f"{skipped} malformed or unlabelled rows left out" if skipped else None
            rows = [_item_row(dataset, response, model.name) for response in responses]
            for score in scores[dataset.name]:
                results.append(score_result(f"GLUE {dataset.name}", model.name, score, self.protocol, note, rows))
        return [*results, *average_result(AVERAGE, model.name, scores, self.protocol)]

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """The majority class and random choice; a row for every set without data."""
        from stages.benchmark.results import missing_score, single_value
        from stages.benchmark.tasks.glue.scores import average, majority_class, random_choice

        results: list[TaskResult] = []
        present = self._with_data()
        guesses: dict[str, dict[str, list[float]]] = {"majority class": {}, "random choice": {}}
        for dataset in present:
            labels = np.array([item["label"] for item in self._items(dataset, context.seed)[0]], dtype=np.float64)
            for (name, by_set), values in zip(
                guesses.items(),
                (majority_class(dataset, labels, labels), random_choice(dataset, labels)),
                strict=True,
            ):
                by_set[dataset.name] = list(values.values())
                results += [
                    single_value(f"GLUE {dataset.name}", name, metric, value) for metric, value in values.items()
                ]
        for name, by_set in guesses.items():
            if mean := average(by_set):
                results.append(single_value(AVERAGE, name, mean.metric, mean.value, note=mean.note))
        for dataset in self._sets():
            if dataset not in present:
                folder = self.folder / dataset.folder
                reason = missing_data_message(folder, dataset.files, dataset.download_command)
                results += [
                    missing_score(f"GLUE {dataset.name}", metric, reason, self.protocol) for metric in dataset.metrics
                ]
        return results

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """The sentences."""
        return {
            f"GLUE {dataset.name}": {item["id"]: sentences(item) for item in self._items(dataset, seed)[0]}
            for dataset in self._with_data()
        }

    def _sets(self) -> list[GlueSet]:
        return [dataset for dataset in SETS if dataset.name in self.sets]

    def _with_data(self) -> list[GlueSet]:
        return [dataset for dataset in self._sets() if find_file(self.folder / dataset.folder, *dataset.files)]

    def _items(self, dataset: GlueSet, seed: int) -> tuple[list[dict[str, Any]], int]:
        path = find_file(self.folder / dataset.folder, *dataset.files)
        assert path is not None
        examples = read_examples(path, dataset)
        return sample_items(examples.items, self.limit, seed), examples.skipped_rows

    def _shots(self, dataset: GlueSet, seed: int) -> list[dict[str, Any]]:
        """Few-shot examples from the training items, the same for every question; fewer if the set has fewer."""
        source = _source(dataset)
        path = find_file(self.folder / source.folder, *source.train) if self.examples else None
        if path is None:
            return []
        items = read_examples(path, source).items
        return random.Random(seed).sample(items, min(self.examples, len(items)))


def _source(dataset: GlueSet) -> GlueSet:
    """The set whose training items are used: the diagnostic set has none and uses those of MNLI, whose task it has."""
    return SETS_BY_NAME["MNLI matched"] if dataset.name == "AX" else dataset


def predictions(dataset: GlueSet, responses: "Sequence[ItemResponses]") -> Values:
    """Index of the most likely answer; for scores the mean of 0, 1 ... weighted by likelihood. (items,)."""
    likelihoods = np.array([[likelihood for likelihood, _ in item.responses] for item in responses])
    if dataset.labels:
        return np.asarray(likelihoods.argmax(1), dtype=np.float64)
    weights = np.exp(likelihoods - likelihoods.max(1, keepdims=True))
    return np.asarray(weights @ np.arange(weights.shape[1]) / weights.sum(1), dtype=np.float64)


def _scores(dataset: GlueSet, responses: "Sequence[ItemResponses]", seed: int) -> "list[Score]":
    from stages.benchmark.tasks.glue.scores import score

    labels = np.array([item.document["label"] for item in responses], dtype=np.float64)
    predicted = predictions(dataset, responses)
    return [score(dataset, metric, labels, predicted, seed) for metric in dataset.metrics]


def _item_row(dataset: GlueSet, item: "ItemResponses", model: str) -> dict[str, Any]:
    from stages.benchmark.results import item_row
    from stages.benchmark.tasks.glue.scores import is_correct

    predicted = float(predictions(dataset, [item])[0])
    label = float(item.document["label"])
    output = {
        "choices": item.choices, "log_likelihoods": [likelihood for likelihood, _ in item.responses],
        "predicted": predicted, "label": label,
    }  # fmt: skip
    correct = is_correct(dataset, predicted, label)
    return item_row(f"GLUE {dataset.name}", item.document["id"], model, output, correct, 1.0, item.prompt)
