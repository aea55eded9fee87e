"""Training on questions of SQuAD, and what the trained networks answer to others.

- `first_articles`: one file in two; `check_training`: what cannot be trained on is refused
- `span_answers`: of every seed
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data_schemas.errors import InputDataError
from stages.benchmark.fine_tuning.config import FineTunedTask
from stages.benchmark.fine_tuning.heads import Head, SpanHead
from stages.benchmark.fine_tuning.training import Examples, FineTuningJob, trainable_network
from stages.benchmark.fine_tuning.workers import Outputs, results_by_seed
from stages.benchmark.task import EvaluatedModel, TaskContext
from stages.benchmark.tasks.squad.answers import SquadAnswer
from stages.benchmark.tasks.squad.data import SquadQuestion
from stages.benchmark.tasks.squad.spans import RowSettings, SpanRow, answer_of, span_rows, span_targets


def first_articles(
    questions: Sequence[SquadQuestion], number: int, file: str
) -> tuple[list[SquadQuestion], list[SquadQuestion]]:
    """The questions of the first so many articles, and the others.

    Raises:
        InputDataError: where no article would be left.
    """
    titles = list(dict.fromkeys(question.title for question in questions))
    if number >= len(titles):
        raise InputDataError(
            f"train_articles is {number} and {file} has {len(titles)} articles; accepted is up to {len(titles) - 1}, "
            "so that at least one is left to be scored on"
        )
    chosen = set(titles[:number])
    training = [question for question in questions if question.title in chosen]
    return training, [question for question in questions if question.title not in chosen]


def check_training(training: Sequence[SquadQuestion], asked: Sequence[SquadQuestion], file: Path) -> None:
    """Training questions must say where their answers stand, and their passages must not be those of the scored ones.

    Raises:
        InputDataError: naming the first question that does not.
    """
    for question in training:
        if question.has_answer and not question.answer_starts:
            raise InputDataError(
                f"{file}, question {question.question_id!r}: its answers have no field 'answer_start', which a network "
                "is trained on; the official files have it"
            )
    scored = {question.context for question in asked}
    both = [question for question in training if question.context in scored]
    if both:
        raise InputDataError(
            f"{file}: the passages of {len(both)} training questions, such as {both[0].question_id!r}, are also scored "
            "on; train on other articles (train-v2.0.json and dev-v2.0.json have none in common)"
        )


def span_answers(
    training: Sequence[SquadQuestion],
    asked: Sequence[SquadQuestion],
    settings: FineTunedTask,
    row_settings: RowSettings,
    max_answer_tokens: int,
    model: EvaluatedModel,
    context: TaskContext,
) -> tuple[list[list[SquadAnswer]], list[str]]:
    """Train for every seed and ask; with what the result must say of the network.

    Raises:
        TrainingDivergedError: where a gradient is not finite.
    """
    network, remarks = trainable_network(model.network)
    rows = span_rows(training, model, row_settings)
    examples = Examples([row.tokens for row in rows], torch.from_numpy(span_targets(rows, training)))
    of_asked = span_rows(asked, model, row_settings)
    read = partial(_as_json, asked, of_asked, max_answer_tokens)
    job = FineTuningJob(network, _head, examples, settings, context.seed)
    by_seed = results_by_seed(job, [row.tokens for row in of_asked], read, model, context)
    return [[SquadAnswer(**fields) for fields in of_seed] for of_seed in by_seed], remarks


def _head(width: int, seed: int) -> Head:
    return SpanHead(width, 2, seed)


def _as_json(
    questions: Sequence[SquadQuestion], rows: Sequence[SpanRow], most_tokens: int, outputs: Outputs
) -> list[dict[str, Any]]:
    """Fields of a `SquadAnswer` to each question."""
    of_question: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        of_question.setdefault(row.question, []).append(place)
    answers = []
    for number, places in of_question.items():
        logits = [outputs[place] for place in places]
        answers.append(asdict(answer_of(questions[number], [rows[place] for place in places], logits, most_tokens)))
    return answers
