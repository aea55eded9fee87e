"""The arithmetic of SQuAD 2.0's official evaluation script (`evaluate-v2.0.py`; 1806.03822, sec. 3 and 5.1).

- `normalize_answer`, `exact_match`, `f1_score`: scores of a prediction against a reference answer
- `question_scores`: maximum over a question's reference answers
- `best_threshold`: best score if predictions above a threshold of the no-answer score count as no answer

A prediction is a text; the empty text means that the context contains no answer.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from stages.benchmark.tasks.squad.data import SquadQuestion

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
NO_ANSWER = ""


class QuestionScore(NamedTuple):
    """Scores of a prediction, 0 to 1."""

    exact: float
    f1: float


class Threshold(NamedTuple):
    """The best score over all no-answer thresholds."""

    score: float
    """Mean over the questions, in percent."""
    threshold: float
    """Predictions with a higher no-answer score count as no answer."""


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, single spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(gold: str, prediction: str) -> float:
    """1 if both are equal after normalization."""
    return float(normalize_answer(gold) == normalize_answer(prediction))


def f1_score(gold: str, prediction: str) -> float:
    """Harmonic mean of precision and recall over the multisets of words; if a side is empty, 1 if both are."""
    gold_words, predicted_words = normalize_answer(gold).split(), normalize_answer(prediction).split()
    if not gold_words or not predicted_words:
        return float(gold_words == predicted_words)
    common = sum((Counter(gold_words) & Counter(predicted_words)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(predicted_words), common / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def question_scores(question: SquadQuestion, prediction: str) -> QuestionScore:
    """Maximum of each score over the reference answers; answers without words are skipped, as in the script."""
    golds = [answer for answer in question.answers if normalize_answer(answer)] or [NO_ANSWER]
    return QuestionScore(
        max(exact_match(gold, prediction) for gold in golds), max(f1_score(gold, prediction) for gold in golds)
    )


def best_threshold(
    questions: Sequence[SquadQuestion],
    scores: Sequence[float],
    predictions: Sequence[str],
    no_answer_scores: Sequence[float],
) -> Threshold:
    """The threshold with the highest score, chosen on the questions that are scored.

    Starts with no answer to every question and adds predictions in the order of their no-answer scores. As in the
    script, questions with equal scores are added one by one, in the order of the file, although no threshold separates
    them, and the threshold is 0 if no prediction improves the score.
    """
    total = best = float(sum(not question.has_answer for question in questions))
    threshold = 0.0
    for index in sorted(range(len(questions)), key=lambda index: no_answer_scores[index]):
        if questions[index].has_answer:
            total += scores[index]
        elif predictions[index]:
            total -= 1
        if total > best:
            best, threshold = total, no_answer_scores[index]
    return Threshold(100 * best / len(questions), threshold)
