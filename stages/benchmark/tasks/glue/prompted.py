"""GLUE by likelihood: the network chooses among worded answers, with or without examples before the question.

- `GlueTask`: which sets, from where, how
- `predictions`: what the answers' likelihoods say
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
from stages.benchmark.tasks.glue.data import BY_NAME, SETS, GlueSet, known_sets, read_examples, sentences

if TYPE_CHECKING:
    from stages.benchmark.harness.run_task import ItemResponses
    from stages.benchmark.results import TaskResult
    from stages.benchmark.tasks.glue.scores import Score

ITEM_BYTES, ITEM_TOKENS, MOST_ITEMS = 150, 90, 10_000
AVERAGE = "GLUE average"


class GlueTask(BenchmarkTask):
    """The tasks of GLUE, zero- or few-shot by likelihood, on the development sets."""

    kind: Literal["glue"] = "glue"
    path: str | None = Field(
        None, description="folder with GLUE's own folders, such as CoLA/dev.tsv; a few items of ours where left out"
    )
    sets: tuple[str, ...] = Field(tuple(BY_NAME), description="which sets are measured", min_length=1)
    examples: int = Field(0, ge=0, description="training items shown with their answers before each question")
    limit: int | None = Field(None, gt=0, description="most items of a set, drawn by the seed; all where left out")

    _sets_exist = field_validator("sets")(known_sets)

    @property
    def folder(self) -> Path:
        """Where the sets are."""
        return local_folder(self.path) if self.path else OWN_DATA / "glue"

    @property
    def protocol(self) -> str:
        """How the network is asked."""
        return f"likelihood, {self.examples} examples"

    def names(self) -> list[str]:
        """`GLUE CoLA` ..."""
        return [*(f"GLUE {name}" for name in self.sets), AVERAGE]

    def tokens(self) -> int:
        """By the size of the files: every answer is a token or two behind its question."""
        known = (find_file(self.folder / of.folder, *of.files) for of in self._sets())
        items = [min(self.limit or MOST_ITEMS, path.stat().st_size // ITEM_BYTES + 1) for path in known if path]
        return sum(items) * ITEM_TOKENS * (1 + self.examples)

    def data_files(self) -> list[Path]:
        """Development and training files of every set."""
        paths = dict.fromkeys(
            self.folder / one.folder / f"{name}{ending}"
            for of in self._sets()
            for one, names in ((of, of.files), (_source(of), _source(of).train if self.examples else ()))
            for name in names
            for ending in ("", ".gz")
        )
        return list(paths)

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """Every set that has data, then the average."""
        from stages.benchmark.harness.run_task import harness_model, run_task
        from stages.benchmark.tasks.glue.scores import average_result, score_result

        results: list[TaskResult] = []
        scores: dict[str, list[Score]] = {}
        lm = harness_model(model, context)
        for of in self._with_data():
            items, left_out = self._items(of, context.seed)
            asked = run_task(of.harness, items, self._shots(of, context.seed), lm)
            scores[of.name] = _scores(of, asked, context.seed)
            note = f"{left_out} malformed or unlabelled rows left out" if left_out else None
            rows = [_item(of, one, model.name) for one in asked]
            for one in scores[of.name]:
                results.append(score_result(f"GLUE {of.name}", model.name, one, self.protocol, note, rows))
        return [*results, *average_result(AVERAGE, model.name, scores, self.protocol)]

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """The commonest class and random choice; a row for every set without data."""
        from stages.benchmark.results import missing_score, single_value
        from stages.benchmark.tasks.glue.scores import average, guess, majority

        results: list[TaskResult] = []
        present = self._with_data()
        guesses: dict[str, dict[str, list[float]]] = {"majority class": {}, "random choice": {}}
        for of in present:
            labels = np.array([item["label"] for item in self._items(of, context.seed)[0]], dtype=np.float64)
            for (name, by_set), values in zip(
                guesses.items(), (majority(of, labels, labels), guess(of, labels)), strict=True
            ):
                by_set[of.name] = list(values.values())
                results += [single_value(f"GLUE {of.name}", name, metric, value) for metric, value in values.items()]
        for name, by_set in guesses.items():
            found = average(by_set)
            if found:
                results.append(single_value(AVERAGE, name, found.metric, found.value, note=found.note))
        for of in self._sets():
            if of not in present:
                reason = missing_data_message(self.folder / of.folder, of.files, of.get)
                results += [missing_score(f"GLUE {of.name}", metric, reason, self.protocol) for metric in of.metrics]
        return results

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """The sentences."""
        return {
            f"GLUE {of.name}": {item["id"]: sentences(item) for item in self._items(of, seed)[0]}
            for of in self._with_data()
        }

    def _sets(self) -> list[GlueSet]:
        return [of for of in SETS if of.name in self.sets]

    def _with_data(self) -> list[GlueSet]:
        return [of for of in self._sets() if find_file(self.folder / of.folder, *of.files)]

    def _items(self, of: GlueSet, seed: int) -> tuple[list[dict[str, Any]], int]:
        path = find_file(self.folder / of.folder, *of.files)
        assert path is not None
        examples = read_examples(path, of)
        return sample_items(examples.items, self.limit, seed), examples.left_out

    def _shots(self, of: GlueSet, seed: int) -> list[dict[str, Any]]:
        """Training items, the same before every question; fewer where there are not so many."""
        source = _source(of)
        path = find_file(self.folder / source.folder, *source.train) if self.examples else None
        if path is None:
            return []
        items = read_examples(path, source).items
        return random.Random(seed).sample(items, min(self.examples, len(items)))


def _source(of: GlueSet) -> GlueSet:
    """The set whose training items are shown: the diagnostic set has none of its own, it is a test of MNLI's."""
    return BY_NAME["MNLI matched"] if of.name == "AX" else of


def predictions(of: GlueSet, asked: "Sequence[ItemResponses]") -> Values:
    """The likeliest answer's place; for a scale the mean of 0, 1 ... under the answers' likelihoods. (items,)."""
    likelihoods = np.array([[likelihood for likelihood, _ in one.responses] for one in asked])
    if of.labels:
        return np.asarray(likelihoods.argmax(1), dtype=np.float64)
    weights = np.exp(likelihoods - likelihoods.max(1, keepdims=True))
    return np.asarray(weights @ np.arange(weights.shape[1]) / weights.sum(1), dtype=np.float64)


def _scores(of: GlueSet, asked: "Sequence[ItemResponses]", seed: int) -> "list[Score]":
    from stages.benchmark.tasks.glue.scores import score

    labels = np.array([one.document["label"] for one in asked], dtype=np.float64)
    predicted = predictions(of, asked)
    return [score(of, metric, labels, predicted, seed) for metric in of.metrics]


def _item(of: GlueSet, asked: "ItemResponses", model: str) -> dict[str, Any]:
    from stages.benchmark.results import item_row
    from stages.benchmark.tasks.glue.scores import is_right

    predicted = float(predictions(of, [asked])[0])
    label = float(asked.document["label"])
    output = {
        "choices": asked.choices, "log_likelihoods": [likelihood for likelihood, _ in asked.responses],
        "predicted": predicted, "label": label,
    }  # fmt: skip
    right = is_right(of, predicted, label)
    return item_row(f"GLUE {of.name}", asked.document["id"], model, output, right, 1.0, asked.prompt)
