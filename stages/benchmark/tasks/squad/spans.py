"""Questions of SQuAD as rows of tokens in which an answer is a span, and spans as answers (1810.04805, section 4.3).

- `windows`: stretches of a passage that fit
- `SpanRow`, `span_rows`: question and stretch as tokens; `span_targets`: what is to be found in them
- `best_span`, `answer_of`: what start and end logits say

A decoder's token sees only what is before it: the question stands before the passage, and no answer is the last token.
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
    """A question and a stretch of its passage."""

    question: int
    """Its place among the questions."""
    tokens: list[int]
    """The last one stands for no answer."""
    first: int
    """Place of the stretch's first token in the row."""
    characters: list[tuple[int, int]]
    """[begin, end) in the context, of each token of the stretch."""


@dataclass(frozen=True)
class RowSettings:
    """How rows are cut."""

    stride: int
    """Tokens from one stretch's beginning to the next one's."""
    question_tokens: int
    """Most of a question, which loses its end."""


def windows(tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Stretches [first, last) of at most `room` tokens that together cover all of `tokens`, `stride` apart."""
    step = min(stride, room)
    found = [(0, min(room, tokens))]
    while found[-1][1] < tokens:
        first = found[-1][0] + step
        found.append((first, min(first + room, tokens)))
    return found


def span_rows(questions: Sequence[SquadQuestion], model: EvaluatedModel, settings: RowSettings) -> list[SpanRow]:
    """All rows of all questions, in their order; none is longer than the network's context."""
    context = model.network.config.context_length
    separator = list(model.tokenizer.encode(SEPARATOR, add_special_tokens=False).ids) or [model.end_of_text]
    begin = [model.end_of_text] if model.prepend_end_of_text else []
    rows = []
    passages: dict[str, tuple[list[int], list[tuple[int, int]]]] = {}
    for place, question in enumerate(questions):
        if question.context not in passages:
            encoded = model.tokenizer.encode(question.context, add_special_tokens=False)
            passages[question.context] = (list(encoded.ids), list(encoded.offsets))
        passage, characters = passages[question.context]
        asked = model.tokenizer.encode(question.question.strip(), add_special_tokens=False).ids
        before = begin + list(asked[: min(settings.question_tokens, context // 2)]) + separator
        room = context - len(before) - len(separator)
        for first, last in windows(len(passage), max(1, room), settings.stride):
            tokens = before + passage[first:last] + separator
            rows.append(SpanRow(place, tokens, len(before), characters[first:last]))
    return rows


def span_targets(rows: Sequence[SpanRow], questions: Sequence[SquadQuestion]) -> npt.NDArray[np.int64]:
    """(rows, 3): places in the row of the stretch's first token, the answer's first and its last.

    The answer is the first marked one; both places are the last token where the stretch does not hold all of it.
    """
    return np.array([(row.first, *_target(row, questions[row.question])) for row in rows], dtype=np.int64)


def _target(row: SpanRow, question: SquadQuestion) -> tuple[int, int]:
    nothing = len(row.tokens) - 1
    if not question.has_answer:
        return nothing, nothing
    begin = question.answer_starts[0]
    end = begin + len(question.answers[0])
    if not row.characters or begin < row.characters[0][0] or end > row.characters[-1][1]:
        return nothing, nothing
    # A token may begin with the space before the answer's first word, and end with a mark behind its last.
    inside = [place for place, (first, last) in enumerate(row.characters) if first < end and last > begin]
    return row.first + inside[0], row.first + inside[-1]


def best_span(start: Logits, end: Logits, most_tokens: int) -> tuple[float, int, int]:
    """(score, first, last) of the span of at most so many tokens with the largest sum of both logits, (tokens,) each.

    Of equal ones the first.
    """
    lengths = np.arange(len(end))[None, :] - np.arange(len(start))[:, None]
    scores = np.where((lengths >= 0) & (lengths < most_tokens), start[:, None] + end[None, :], -np.inf)
    first, last = np.unravel_index(int(scores.argmax()), scores.shape)
    return float(scores[first, last]), int(first), int(last)


def answer_of(
    question: SquadQuestion, rows: Sequence[SpanRow], logits: Sequence[Logits], most_tokens: int
) -> SquadAnswer:
    """The best span over a question's rows, given up where no answer scores higher.

    Args:
        question: what was asked.
        rows: all of its rows.
        logits: of each row (tokens, 2), of start and end.
        most_tokens: of an answer.

    Returns:
        The no-answer score is s_null - s_best of 1810.04805, section 4.3: the lowest sum of both logits of a row's last
        token, as only the row with the answer speaks against there being none, less the highest one of a span.
    """
    spans = []
    for number, (row, of_row) in enumerate(zip(rows, logits, strict=True)):
        inside = of_row[row.first : -1]
        if len(inside):
            score, first, last = best_span(inside[:, 0], inside[:, 1], most_tokens)
            spans.append((score, -number, (row.characters[first][0], row.characters[last][1])))
    nothing = min(float(of_row[-1].sum()) for of_row in logits)
    score, _, (begin, end) = max(spans)
    text = question.context[begin:end].strip()
    doubt = nothing - score
    evidence = {"characters": [begin, end], "best_text": text, "span_score": score, "no_span_score": nothing}
    return SquadAnswer(NO_ANSWER if doubt > 0 else text, doubt, evidence, best_text=text)
