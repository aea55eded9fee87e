"""Training on a set of GLUE, and the predictions of the trained networks for one or more sets.

- `TrainingSet`: the training items
- `sentence_row`: one or two sentences as tokens
- `predictions_by_seed`: predictions of the network trained with each seed
- `set_results`: results of a set, for each metric from the seed with the median
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from stages.benchmark.fine_tuning.config import FineTunedTask
from stages.benchmark.fine_tuning.heads import ClassHead, Head, ScaleHead
from stages.benchmark.fine_tuning.training import Examples, FineTuningJob, trainable_network
from stages.benchmark.fine_tuning.workers import Outputs, median_index, results_by_seed, seeds_note
from stages.benchmark.metrics import METRICS, Values
from stages.benchmark.results import TaskResult, item_row
from stages.benchmark.task import EvaluatedModel, TaskContext
from stages.benchmark.tasks.glue.data import GlueSet, sentences
from stages.benchmark.tasks.glue.scores import Score, is_correct, score, score_result

SEPARATOR = "\n"

Item = dict[str, Any]


@dataclass(frozen=True)
class TrainingSet:
    """Items with labels."""

    dataset: GlueSet
    items: list[Item]
    file_items: int
    """Number of items in the file."""
    skipped_rows: int
    """Number of rows of the file that are not items."""
    file: str

    @property
    def labels(self) -> Values:
        """(items,) class indices, or scores."""
        return np.array([item["label"] for item in self.items], dtype=np.float64)

    def note(self) -> str:
        """Description of the training items, for the results."""
        total = f" of {self.file_items:,}" if len(self.items) < self.file_items else ""
        skipped = f", {self.skipped_rows} malformed or unlabelled rows left out" if self.skipped_rows else ""
        return f"trained on {len(self.items):,}{total} items of {self.file}{skipped}"

    def scale(self) -> tuple[float, float]:
        """(mean, standard deviation) of the labels; 1 if they are constant."""
        return float(self.labels.mean()), float(self.labels.std()) or 1.0


@dataclass(frozen=True)
class SeedPredictions:
    """Predictions of a network for items."""

    seed: int
    predicted: Values
    """(items,)."""
    outputs: Values
    """(items, outputs): logits, or the score in standard deviations from the training mean."""

    def of_items(self, indices: slice) -> "SeedPredictions":
        """Predictions for some of the items."""
        return SeedPredictions(self.seed, self.predicted[indices], self.outputs[indices])


def sentence_row(sentences: Sequence[str], model: EvaluatedModel) -> list[int]:
    """Tokens of one or two sentences, each followed by a line end, truncated to the network's context.

    Every row ends with the same token, a line end, which the head reads. A row that is too long loses the beginning of
    its first sentence, then of its second.
    """

    def encode(text: str) -> list[int]:
        return list(model.tokenizer.encode(text, add_special_tokens=False).ids)

    separator = encode(SEPARATOR) or [model.end_of_text]
    prefix = [model.end_of_text] if model.prepend_end_of_text else []
    available = model.network.config.context_length - len(prefix) - len(sentences) * len(separator)
    row: list[int] = []
    for tokens in map(encode, reversed(sentences)):
        kept = tokens[max(0, len(tokens) - max(0, available)) :]
        available -= len(kept)
        row = kept + separator + row
    return (prefix + row)[-model.network.config.context_length :]


def predictions_by_seed(
    training: TrainingSet,
    scored: Sequence[Item],
    settings: FineTunedTask,
    model: EvaluatedModel,
    context: TaskContext,
) -> tuple[list[SeedPredictions], str]:
    """(predictions by the network trained with each seed, note on the training for the results).

    Raises:
        TrainingDivergedError: if a gradient is not finite.
    """
    network, remarks = trainable_network(model.network)
    mean, deviation = training.scale()
    labels = torch.from_numpy(training.labels)
    targets = labels.long() if training.dataset.labels else ((labels - mean) / deviation).float()
    examples = Examples([sentence_row(sentences(item), model) for item in training.items], targets)
    job = FineTuningJob(network, partial(_head, len(training.dataset.labels)), examples, settings, context.seed)
    rows = [sentence_row(sentences(item), model) for item in scored]
    predictions = []
    for index, lists in enumerate(results_by_seed(job, rows, _to_lists, model, context)):
        outputs = np.array(lists)
        predicted = (
            outputs.argmax(1).astype(np.float64) if training.dataset.labels else mean + deviation * outputs[:, 0]
        )
        predictions.append(SeedPredictions(context.seed + index, predicted, outputs))
    return predictions, "; ".join([training.note(), *remarks])


def _head(classes: int, width: int, seed: int) -> Head:
    return ClassHead(width, classes, seed) if classes else ScaleHead(width, 1, seed)


def _to_lists(outputs: Outputs) -> list[list[float]]:
    return [row.tolist() for row in outputs]


def set_results(
    dataset: GlueSet,
    items: Sequence[Item],
    by_seed: Sequence[SeedPredictions],
    task: str,
    model: EvaluatedModel,
    protocol: str,
    note: str,
) -> list[tuple[Score, TaskResult]]:
    """For each metric of a set the score and items of the median seed; the note has the values of all seeds."""
    labels = np.array([item["label"] for item in items], dtype=np.float64)
    results: list[tuple[Score, TaskResult]] = []
    for metric in dataset.metrics:
        values = [METRICS[metric](labels, predictions.predicted) for predictions in by_seed]
        median = by_seed[median_index(values)]
        rows = _item_rows(dataset, items, median, task, model)
        median_score = score(dataset, metric, labels, median.predicted, by_seed[0].seed)
        full_note = f"{note}; {seeds_note(values, by_seed[0].seed)}"
        results.append((median_score, score_result(task, model.name, median_score, protocol, full_note, rows)))
    return results


def _item_rows(
    dataset: GlueSet, items: Sequence[Item], predictions: SeedPredictions, task: str, model: EvaluatedModel
) -> list[Item]:
    rows = []
    for item, predicted, outputs in zip(
        items, predictions.predicted.tolist(), predictions.outputs.tolist(), strict=True
    ):
        label = float(item["label"])
        output = {"seed": predictions.seed, "outputs": outputs, "predicted": predicted, "label": label}
        prompt = "".join(f"{text}{SEPARATOR}" for text in sentences(item))
        rows.append(item_row(task, item["id"], model.name, output, is_correct(dataset, predicted, label), 1.0, prompt))
    return rows
