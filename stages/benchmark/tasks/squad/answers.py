"""SQuAD 2.0 as a task: what a prompted network and two baselines answer, as scores with intervals.

- `prompted`: answers of a network that is given as two functions
- `always_no_answer`, `most_similar_sentence`: baselines
- `squad_results`: answers -> `exact`, `f1`, `HasAns_f1`, `NoAns_f1`, `best_exact`, `best_f1`
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.benchmark.results import TaskResult, item_row, score_row, single_value
from stages.benchmark.tasks.squad.data import TASK, SquadQuestion
from stages.benchmark.tasks.squad.official_scores import NO_ANSWER, best_threshold, normalize_answer, question_scores
from stages.benchmark.tasks.squad.prompt import UNANSWERABLE, CountTokens, predicted_answer, prompt
from stages.common.statistics import bootstrap_interval

CHOSEN = "the threshold was chosen on these questions"
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")

Generate = Callable[[Sequence[str]], Sequence[str]]
"""Prompts to what the network greedily goes on with, at least to the end of the line."""
LogLikelihood = Callable[[Sequence[tuple[str, str]]], npt.NDArray[np.float64]]
"""(prompt, continuation) pairs to the continuations' natural-log likelihoods, (pairs,)."""


@dataclass(frozen=True)
class SquadAnswer:
    """What was answered to one question."""

    text: str
    """Empty for no answer."""
    no_answer_score: float
    """The higher, the likelier that there is no answer; `best_exact` and `best_f1` give up above a threshold of it."""
    evidence: dict[str, Any]
    """What the answer was taken from, for the item table."""
    prompt: str | None = None
    """What the network was given, where it was given a text."""
    best_text: str | None = None
    """The answer had it not been given up for its no-answer score, which `best_exact` and `best_f1` take up again;
    left out where it is `text`."""


def prompted(
    questions: Sequence[SquadQuestion],
    generate: Generate,
    log_likelihood: LogLikelihood,
    count_tokens: CountTokens,
    room: int,
) -> list[SquadAnswer]:
    """A network's answers, zero-shot.

    The answer is the generation to the end of its line. The no-answer score is the log-likelihood of 'unanswerable'
    less that of the answer, both behind the prompt; 0 where the network itself gave no answer.

    Args:
        questions: what is asked.
        generate: asked once, for all questions.
        log_likelihood: asked once, for two continuations of each question with an answer.
        count_tokens: length of a text in the network's tokens.
        room: most tokens of a prompt.
    """
    prompts = [prompt(question, count_tokens, room) for question in questions]
    generations = generate(prompts)
    texts = [predicted_answer(generated) for generated in generations]
    answered = [place for place, text in enumerate(texts) if text != NO_ANSWER]
    pairs = [(prompts[place], f" {text}") for place in answered for text in (UNANSWERABLE, texts[place])]
    given_up = np.zeros(len(questions))
    if pairs:
        likelihoods = np.asarray(log_likelihood(pairs), dtype=np.float64).reshape(-1, 2)
        given_up[answered] = likelihoods[:, 0] - likelihoods[:, 1]
    return [
        SquadAnswer(text, float(chance), {"generated": generated}, asked)
        for text, chance, asked, generated in zip(texts, given_up, prompts, generations, strict=True)
    ]


def always_no_answer(questions: Sequence[SquadQuestion]) -> list[SquadAnswer]:
    """The baseline that gets every unanswerable question right and no other."""
    return [SquadAnswer(NO_ANSWER, 0.0, {}) for _ in questions]


def most_similar_sentence(questions: Sequence[SquadQuestion]) -> list[SquadAnswer]:
    """For each question the sentence of its passage with most distinct words of the question, the first of equals.

    The no-answer score is the share of the question's words that the sentence lacks.
    """
    return [_most_similar(question) for question in questions]


def _most_similar(question: SquadQuestion) -> SquadAnswer:
    asked = set(normalize_answer(question.question).split())
    sentences = SENTENCE_END.split(question.context.strip())
    shared = [len(asked & set(normalize_answer(sentence).split())) for sentence in sentences]
    most = max(shared)
    return SquadAnswer(sentences[shared.index(most)], 1 - most / max(len(asked), 1), {"shared_words": most})


def squad_results(
    name: str,
    questions: Sequence[SquadQuestion],
    answers: Sequence[SquadAnswer],
    seed: int,
    task: str = TASK,
    protocol: str | None = None,
    note: str | None = None,
) -> list[TaskResult]:
    """Scores from 0 to 1 (the official script's are percentages), with intervals over questions.

    `best_exact` and `best_f1` have none: their thresholds are chosen on the questions themselves.

    Args:
        name: model or baseline.
        questions: at least one.
        answers: one each.
        seed: of the bootstrap.
        task: as the result calls it.
        protocol: how the model was asked.
        note: what a reader must know of it.
    """
    scores = [question_scores(question, answer.text) for question, answer in zip(questions, answers, strict=True)]
    everything = range(len(questions))
    with_answer = [place for place in everything if questions[place].has_answer]
    without_answer = [place for place in everything if not questions[place].has_answer]
    chosen = {
        "exact": (everything, "exact"), "f1": (everything, "f1"),
        "HasAns_f1": (with_answer, "f1"), "NoAns_f1": (without_answer, "f1"),
    }  # fmt: skip
    results = []
    for metric, (places, field) in chosen.items():
        values = [getattr(scores[place], field) for place in places]
        if not values:
            continue
        items = [
            item_row(
                task, questions[place].question_id, name, _output(questions[place], answers[place]), value, 1.0,
                answers[place].prompt,
            )
            for place, value in zip(places, values, strict=True)
        ]  # fmt: skip
        interval = bootstrap_interval(values, np.ones(len(values)), seed)
        results.append(TaskResult(score_row(task, name, metric, interval, len(values), True, protocol, note), items))
    chosen_here = "; ".join(filter(None, (note, CHOSEN)))
    best = _at_best_thresholds(questions, answers)
    return results + [single_value(task, name, metric, value, protocol, chosen_here) for metric, value in best.items()]


def _output(question: SquadQuestion, answer: SquadAnswer) -> dict[str, Any]:
    return {
        "predicted": answer.text, "no_answer_score": answer.no_answer_score, "accepted": question.answers,
        **answer.evidence,
    }  # fmt: skip


def _at_best_thresholds(questions: Sequence[SquadQuestion], answers: Sequence[SquadAnswer]) -> dict[str, float]:
    texts = [answer.text if answer.best_text is None else answer.best_text for answer in answers]
    given_up = [answer.no_answer_score for answer in answers]
    scores = [question_scores(question, text) for question, text in zip(questions, texts, strict=True)]
    return {
        metric: best_threshold(questions, values, texts, given_up).score / 100
        for metric, values in zip(("best_exact", "best_f1"), zip(*scores, strict=True), strict=True)
    }
