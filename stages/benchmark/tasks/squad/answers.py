"""Answers to SQuAD 2.0 by a prompted network and two baselines, and their scores.

- `prompted_answers`: zero-shot answers of a network, which is passed as two functions
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

THRESHOLD_NOTE = "the threshold was chosen on these questions"
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")

Generate = Callable[[Sequence[str]], Sequence[str]]
"""Prompts -> greedy continuations, at least to the end of the line."""
LogLikelihood = Callable[[Sequence[tuple[str, str]]], npt.NDArray[np.float64]]
"""(prompt, continuation) pairs -> natural-log likelihoods of the continuations, (pairs,)."""


@dataclass(frozen=True)
class SquadAnswer:
    """The answer to a question."""

    text: str
    """Empty for no answer."""
    no_answer_score: float
    """Higher if no answer is more likely; for `best_exact` and `best_f1`, an answer above a threshold counts as
    none."""
    evidence: dict[str, Any]
    """Basis of the answer, for the item table."""
    prompt: str | None = None
    """The prompt, if the network is prompted with a text."""
    best_text: str | None = None
    """The answer regardless of the no-answer score, for `best_exact` and `best_f1`; None if it is `text`."""


def prompted_answers(
    questions: Sequence[SquadQuestion],
    generate: Generate,
    log_likelihood: LogLikelihood,
    count_tokens: CountTokens,
    max_tokens: int,
) -> list[SquadAnswer]:
    """Zero-shot answers of a network.

    An answer is the generated text up to the end of the line. The no-answer score is the log-likelihood of
    'unanswerable' less that of the answer, both after the prompt; 0 if the network itself gave no answer.

    Args:
        questions: the questions.
        generate: called once, for all questions.
        log_likelihood: called once, for two continuations of each question with an answer.
        count_tokens: number of a text's tokens.
        max_tokens: limit of a prompt's tokens.
    """
    prompts = [prompt(question, count_tokens, max_tokens) for question in questions]
    generations = generate(prompts)
    texts = [predicted_answer(generated) for generated in generations]
    answered = [index for index, text in enumerate(texts) if text != NO_ANSWER]
    pairs = [(prompts[index], f" {text}") for index in answered for text in (UNANSWERABLE, texts[index])]
    no_answer_scores = np.zeros(len(questions))
    if pairs:
        likelihoods = np.asarray(log_likelihood(pairs), dtype=np.float64).reshape(-1, 2)
        no_answer_scores[answered] = likelihoods[:, 0] - likelihoods[:, 1]
    return [
        SquadAnswer(text, float(no_answer_score), {"generated": generated}, prompt_text)
        for text, no_answer_score, prompt_text, generated in zip(
            texts, no_answer_scores, prompts, generations, strict=True
        )
    ]


def always_no_answer(questions: Sequence[SquadQuestion]) -> list[SquadAnswer]:
    """The baseline without answers, which is correct for the unanswerable questions only."""
    return [SquadAnswer(NO_ANSWER, 0.0, {}) for _ in questions]


def most_similar_sentence(questions: Sequence[SquadQuestion]) -> list[SquadAnswer]:
    """The baseline that answers with the sentence that shares the most distinct words with the question.

    Of equal sentences it takes the first. The no-answer score is the share of the question's words that the sentence
    lacks.
    """
    return [_most_similar(question) for question in questions]


def _most_similar(question: SquadQuestion) -> SquadAnswer:
    words = set(normalize_answer(question.question).split())
    sentences = SENTENCE_END.split(question.context.strip())
    shared = [len(words & set(normalize_answer(sentence).split())) for sentence in sentences]
    maximum = max(shared)
    return SquadAnswer(sentences[shared.index(maximum)], 1 - maximum / max(len(words), 1), {"shared_words": maximum})


def squad_results(
    name: str,
    questions: Sequence[SquadQuestion],
    answers: Sequence[SquadAnswer],
    seed: int,
    task: str = TASK,
    protocol: str | None = None,
    note: str | None = None,
) -> list[TaskResult]:
    """Scores from 0 to 1 (the official script reports percentages), with intervals over questions.

    `best_exact` and `best_f1` have no interval: their thresholds are chosen on the questions themselves.

    Args:
        name: name of the model or baseline.
        questions: the questions, at least one.
        answers: one per question.
        seed: seed of the bootstrap.
        task: task name in the results.
        protocol: how the answers were obtained.
        note: remark for readers of the results.
    """
    scores = [question_scores(question, answer.text) for question, answer in zip(questions, answers, strict=True)]
    all_indices = range(len(questions))
    with_answer = [index for index in all_indices if questions[index].has_answer]
    without_answer = [index for index in all_indices if not questions[index].has_answer]
    subsets = {
        "exact": (all_indices, "exact"), "f1": (all_indices, "f1"),
        "HasAns_f1": (with_answer, "f1"), "NoAns_f1": (without_answer, "f1"),
    }  # fmt: skip
    results = []
    for metric, (indices, field) in subsets.items():
        values = [getattr(scores[index], field) for index in indices]
        if not values:
            continue
        items = [
            item_row(
                task, questions[index].question_id, name, _output(questions[index], answers[index]), value, 1.0,
                answers[index].prompt,
            )
            for index, value in zip(indices, values, strict=True)
        ]  # fmt: skip
        interval = bootstrap_interval(values, np.ones(len(values)), seed)
        results.append(TaskResult(score_row(task, name, metric, interval, len(values), True, protocol, note), items))
    threshold_note = "; ".join(filter(None, (note, THRESHOLD_NOTE)))
    best = _best_threshold_scores(questions, answers)
    return results + [
        single_value(task, name, metric, value, protocol, threshold_note) for metric, value in best.items()
    ]


def _output(question: SquadQuestion, answer: SquadAnswer) -> dict[str, Any]:
    return {
        "predicted": answer.text, "no_answer_score": answer.no_answer_score, "accepted": question.answers,
        **answer.evidence,
    }  # fmt: skip


def _best_threshold_scores(questions: Sequence[SquadQuestion], answers: Sequence[SquadAnswer]) -> dict[str, float]:
    texts = [answer.text if answer.best_text is None else answer.best_text for answer in answers]
    no_answer_scores = [answer.no_answer_score for answer in answers]
    scores = [question_scores(question, text) for question, text in zip(questions, texts, strict=True)]
    return {
        metric: best_threshold(questions, values, texts, no_answer_scores).score / 100
        for metric, values in zip(("best_exact", "best_f1"), zip(*scores, strict=True), strict=True)
    }
