"""One training for one or more sets of GLUE: items as rows of tokens, and the trained networks' answers as results.

- `TrainingSet`: what is learnt from
- `sentence_row`: a sentence, or two, as tokens
- `predictions_by_seed`: what each seed's network predicts
- `set_results`: of a set, for each metric the seed with the median
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
from stages.benchmark.tasks.glue.scores import Score, is_right, score, score_result

SEPARATOR = "\n"

Item = dict[str, Any]


@dataclass(frozen=True)
class TrainingSet:
    """Items with labels."""

    of: GlueSet
    items: list[Item]
    there: int
    """Items in the file."""
    left_out: int
    """Rows of the file that are no items."""
    file: str

    @property
    def labels(self) -> Values:
        """(items,) classes by their places, or numbers of a scale."""
        return np.array([item["label"] for item in self.items], dtype=np.float64)

    def note(self) -> str:
        """What was learnt from, for the result."""
        whole = f" of {self.there:,}" if len(self.items) < self.there else ""
        left_out = f", {self.left_out} malformed or unlabelled rows left out" if self.left_out else ""
        return f"trained on {len(self.items):,}{whole} items of {self.file}{left_out}"

    def scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the labels; 1 where they do not vary."""
        return float(self.labels.mean()), float(self.labels.std()) or 1.0


@dataclass(frozen=True)
class SeedPredictions:
    """Of the items of one set."""

    seed: int
    predicted: Values
    """(items,)."""
    outputs: Values
    """(items, outputs): logits, or the place on the scale in standard deviations from the training mean."""

    def of_items(self, places: slice) -> "SeedPredictions":
        """Of some of them."""
        return SeedPredictions(self.seed, self.predicted[places], self.outputs[places])


def sentence_row(sentences: Sequence[str], model: EvaluatedModel) -> list[int]:
    """Tokens of one or two sentences, each with a line's end behind it, at most the network's context.

    The last line's end is the last token of every row, so that the head always reads the same one. What is too long
    loses the beginning of its first sentence, then of its second.
    """

    def encode(text: str) -> list[int]:
        return list(model.tokenizer.encode(text, add_special_tokens=False).ids)

    separator = encode(SEPARATOR) or [model.end_of_text]
    begin = [model.end_of_text] if model.prepend_end_of_text else []
    room = model.network.config.context_length - len(begin) - len(sentences) * len(separator)
    row: list[int] = []
    for tokens in map(encode, reversed(sentences)):
        kept = tokens[max(0, len(tokens) - max(0, room)) :]
        room -= len(kept)
        row = kept + separator + row
    return (begin + row)[-model.network.config.context_length :]


def predictions_by_seed(
    training: TrainingSet,
    asked: Sequence[Item],
    settings: FineTunedTask,
    model: EvaluatedModel,
    context: TaskContext,
) -> tuple[list[SeedPredictions], str]:
    """Train for every seed and ask; with what the result must say of the training.

    Raises:
        TrainingDivergedError: where a gradient is not finite.
    """
    network, remarks = trainable_network(model.network)
    mean, spread = training.scale()
    labels = torch.from_numpy(training.labels)
    targets = labels.long() if training.of.labels else ((labels - mean) / spread).float()
    examples = Examples([sentence_row(sentences(item), model) for item in training.items], targets)
    job = FineTuningJob(network, partial(_head, len(training.of.labels)), examples, settings, context.seed)
    rows = [sentence_row(sentences(item), model) for item in asked]
    found = []
    for place, one in enumerate(results_by_seed(job, rows, _as_lists, model, context)):
        outputs = np.array(one)
        predicted = outputs.argmax(1).astype(np.float64) if training.of.labels else mean + spread * outputs[:, 0]
        found.append(SeedPredictions(context.seed + place, predicted, outputs))
    return found, "; ".join([training.note(), *remarks])


def _head(classes: int, width: int, seed: int) -> Head:
    return ClassHead(width, classes, seed) if classes else ScaleHead(width, 1, seed)


def _as_lists(outputs: Outputs) -> list[list[float]]:
    return [one.tolist() for one in outputs]


def set_results(
    of: GlueSet,
    items: Sequence[Item],
    by_seed: Sequence[SeedPredictions],
    task: str,
    model: EvaluatedModel,
    protocol: str,
    note: str,
) -> list[tuple[Score, TaskResult]]:
    """For each metric of a set the score and items of its median seed, with what every seed has in the note."""
    labels = np.array([item["label"] for item in items], dtype=np.float64)
    results: list[tuple[Score, TaskResult]] = []
    for metric in of.metrics:
        values = [METRICS[metric](labels, one.predicted) for one in by_seed]
        place = median_index(values)
        rows = _item_rows(of, items, by_seed[place], task, model)
        found = score(of, metric, labels, by_seed[place].predicted, by_seed[0].seed)
        whole = f"{note}; {seeds_note(values, by_seed[0].seed)}"
        results.append((found, score_result(task, model.name, found, protocol, whole, rows)))
    return results


def _item_rows(
    of: GlueSet, items: Sequence[Item], answers: SeedPredictions, task: str, model: EvaluatedModel
) -> list[Item]:
    rows = []
    for item, predicted, outputs in zip(items, answers.predicted.tolist(), answers.outputs.tolist(), strict=True):
        label = float(item["label"])
        output = {"seed": answers.seed, "outputs": outputs, "predicted": predicted, "label": label}
        prompt = "".join(f"{text}{SEPARATOR}" for text in sentences(item))
        rows.append(item_row(task, item["id"], model.name, output, is_right(of, predicted, label), 1.0, prompt))
    return rows
