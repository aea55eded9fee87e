"""SQuAD as span prediction: questions as rows of tokens, and predicted spans as answers (1810.04805, section 4.3).

- `windows`: overlapping windows of a passage
- `SpanRow`, `span_rows`: a question and a window as tokens; `span_targets`: positions of the answer in the rows
- `best_span`, `best_answer`: span and answer with the highest start and end logits

A decoder's token attends only to earlier ones: the question precedes the passage, and the last token represents no
answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.benchmark.task import EvaluatedModel
from stages.benchmark.tasks.squad.answers import SquadAnswer
from stages.benchmark.tasks.squad.data import SquadQuestion
from stages.benchmark.tasks.squad.official_scores import NO_ANSWER

SEPARATOR = "\n"

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SpanRow:
    """A question and a window of its passage."""

    question: int
    """Index of the question."""
    tokens: list[int]
    """Tokens of the row; the last one represents no answer."""
    first: int
    """Position of the window's first token in the row."""
    characters: list[tuple[int, int]]
    """[begin, end) in the context of each token of the window, in characters."""


@dataclass(frozen=True)
class RowSettings:
    """Limits of a row's parts."""

    stride: int
    """Tokens between the starts of consecutive windows."""
    max_question_tokens: int
    """Limit of a question's tokens; a longer one is truncated at its end."""


def windows(tokens: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Windows [first, last) of up to `size` tokens, `stride` apart, that together cover `tokens`."""
    step = min(stride, size)
    bounds = [(0, min(size, tokens))]
    while bounds[-1][1] < tokens:
        first = bounds[-1][0] + step
        bounds.append((first, min(first + size, tokens)))
    return bounds


def span_rows(questions: Sequence[SquadQuestion], model: EvaluatedModel, settings: RowSettings) -> list[SpanRow]:
    """Rows of all questions, in their order, each at most as long as the network's context."""
    context = model.network.config.context_length
    separator = list(model.tokenizer.encode(SEPARATOR, add_special_tokens=False).ids) or [model.end_of_text]
    prefix = [model.end_of_text] if model.prepend_end_of_text else []
    rows = []
    passages: dict[str, tuple[list[int], list[tuple[int, int]]]] = {}
    for index, question in enumerate(questions):
        if question.context not in passages:
            encoded = model.tokenizer.encode(question.context, add_special_tokens=False)
            passages[question.context] = (list(encoded.ids), list(encoded.offsets))
        passage, characters = passages[question.context]
        question_ids = model.tokenizer.encode(question.question.strip(), add_special_tokens=False).ids
        before = prefix + list(question_ids[: min(settings.max_question_tokens, context // 2)]) + separator
        window_size = context - len(before) - len(separator)
        for first, last in windows(len(passage), max(1, window_size), settings.stride):
            tokens = before + passage[first:last] + separator
            rows.append(SpanRow(index, tokens, len(before), characters[first:last]))
    return rows


def span_targets(rows: Sequence[SpanRow], questions: Sequence[SquadQuestion]) -> npt.NDArray[np.int64]:
    """(rows, 3): positions in the row of the window's first token, the answer's first token and its last.

    The answer is the first reference answer; both positions are the row's last token if the window does not contain
    all of it.
    """
    return np.array([(row.first, *_target(row, questions[row.question])) for row in rows], dtype=np.int64)


def _target(row: SpanRow, question: SquadQuestion) -> tuple[int, int]:
    no_answer = len(row.tokens) - 1
    if not question.has_answer:
        return no_answer, no_answer
    begin = question.answer_starts[0]
    end = begin + len(question.answers[0])
    if not row.characters or begin < row.characters[0][0] or end > row.characters[-1][1]:
        return no_answer, no_answer
    # The tokens may extend over the answer, by a space before it or a punctuation mark after it.
    inside = [index for index, (first, last) in enumerate(row.characters) if first < end and last > begin]
    return row.first + inside[0], row.first + inside[-1]


def best_span(start: Logits, end: Logits, max_tokens: int) -> tuple[float, int, int]:
    """(score, first, last) of the span of up to `max_tokens` tokens with the highest sum of start and end logit.

    `start` and `end` are (tokens,). Of equal spans the first.
    """
    lengths = np.arange(len(end))[None, :] - np.arange(len(start))[:, None]
    scores = np.where((lengths >= 0) & (lengths < max_tokens), start[:, None] + end[None, :], -np.inf)
    first, last = np.unravel_index(int(scores.argmax()), scores.shape)
    return float(scores[first, last]), int(first), int(last)


def best_answer(
    question: SquadQuestion, rows: Sequence[SpanRow], logits: Sequence[Logits], max_tokens: int
) -> SquadAnswer:
    """The best span over a question's rows, or no answer if that scores higher.

    The no-answer score is s_null - s_best of 1810.04805, section 4.3: the lowest sum of both logits of a row's last
    token, as only the row with the answer is evidence against no answer, less the highest sum of a span.

    Args:
        question: the question.
        rows: all of its rows.
        logits: (tokens, 2) of each row, for start and end.
        max_tokens: limit of an answer's tokens.
    """
    spans = []
    for number, (row, row_logits) in enumerate(zip(rows, logits, strict=True)):
        window = row_logits[row.first : -1]
        if len(window):
            score, first, last = best_span(window[:, 0], window[:, 1], max_tokens)
            spans.append((score, -number, (row.characters[first][0], row.characters[last][1])))
    null_score = min(float(row_logits[-1].sum()) for row_logits in logits)
    score, _, (begin, end) = max(spans)
    text = question.context[begin:end].strip()
    no_answer_score = null_score - score
    evidence = {"characters": [begin, end], "best_text": text, "span_score": score, "no_span_score": null_score}
    return SquadAnswer(NO_ANSWER if no_answer_score > 0 else text, no_answer_score, evidence, best_text=text)
