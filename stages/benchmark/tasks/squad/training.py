"""Training on SQuAD questions, and the answers of the trained networks.

- `first_articles`: split of a file into training and scored questions
- `check_training`: checks that the training questions can be used
- `span_answers`: train with every seed and answer
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
from stages.benchmark.tasks.squad.spans import RowSettings, SpanRow, best_answer, span_rows, span_targets


def first_articles(
    questions: Sequence[SquadQuestion], number: int, file: str
) -> tuple[list[SquadQuestion], list[SquadQuestion]]:
    """The questions of the first `number` articles, and the other questions.

    Raises:
        InputDataError: if no article would remain.
    """
    titles = list(dict.fromkeys(question.title for question in questions))
    if number >= len(titles):
        raise InputDataError(
            f"train_articles is {number} and {file} has {len(titles)} articles; accepted is up to {len(titles) - 1}, "
            "so that at least one remains to be scored"
        )
    training_titles = set(titles[:number])
    training = [question for question in questions if question.title in training_titles]
    return training, [question for question in questions if question.title not in training_titles]


def check_training(training: Sequence[SquadQuestion], scored: Sequence[SquadQuestion], file: Path) -> None:
    """Check that training questions have answer offsets and share no passage with the scored questions.

    Raises:
        InputDataError: naming the first question that fails the check.
    """
    for question in training:
        if question.has_answer and not question.answer_starts:
            raise InputDataError(
                f"{file}, question {question.question_id!r}: its answers have no field 'answer_start', which training "
                "needs; the official files have it"
            )
    scored_contexts = {question.context for question in scored}
    shared = [question for question in training if question.context in scored_contexts]
    if shared:
        raise InputDataError(
            f"{file}: the passages of {len(shared)} training questions, such as {shared[0].question_id!r}, are also "
            "scored; train on other articles (train-v2.0.json and dev-v2.0.json have none in common)"
        )


def span_answers(
    training: Sequence[SquadQuestion],
    scored: Sequence[SquadQuestion],
    settings: FineTunedTask,
    row_settings: RowSettings,
    max_answer_tokens: int,
    model: EvaluatedModel,
    context: TaskContext,
) -> tuple[list[list[SquadAnswer]], list[str]]:
    """(answers of the network trained with each seed, remarks on the network for the results).

    Raises:
        TrainingDivergedError: if a gradient is not finite.
    """
    network, remarks = trainable_network(model.network)
    rows = span_rows(training, model, row_settings)
    examples = Examples([row.tokens for row in rows], torch.from_numpy(span_targets(rows, training)))
    scored_rows = span_rows(scored, model, row_settings)
    decode = partial(_answer_fields, scored, scored_rows, max_answer_tokens)
    job = FineTuningJob(network, _head, examples, settings, context.seed)
    fields_by_seed = results_by_seed(job, [row.tokens for row in scored_rows], decode, model, context)
    return [[SquadAnswer(**fields) for fields in answers] for answers in fields_by_seed], remarks


def _head(width: int, seed: int) -> Head:
    return SpanHead(width, 2, seed)


def _answer_fields(
    questions: Sequence[SquadQuestion], rows: Sequence[SpanRow], max_tokens: int, outputs: Outputs
) -> list[dict[str, Any]]:
    """Fields of the `SquadAnswer` to each question."""
    rows_of_question: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        rows_of_question.setdefault(row.question, []).append(index)
    answers = []
    for question, indices in rows_of_question.items():
        logits = [outputs[index] for index in indices]
        answers.append(asdict(best_answer(questions[question], [rows[index] for index in indices], logits, max_tokens)))
    return answers
