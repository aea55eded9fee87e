"""The arithmetic of SQuAD 2.0's official evaluation script (`evaluate-v2.0.py`; 1806.03822, sec. 3 and 5.1).

- `normalize_answer`, `exact_match`, `f1_score`: one prediction against one marked answer
- `question_scores`: the best of both over a question's marked answers
- `best_threshold`: predictions replaced by no answer if their no-answer score is high

A prediction is a text; the empty one says that the context holds no answer.
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
    """What a prediction is worth, 0 to 1."""

    exact: float
    f1: float


class Threshold(NamedTuple):
    """The best total that giving up above a threshold reaches."""

    score: float
    """Mean over the questions, in percent."""
    threshold: float
    """No-answer scores above it are predictions of no answer."""


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, single spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(gold: str, prediction: str) -> float:
    """1 where both are equal once normalized."""
    return float(normalize_answer(gold) == normalize_answer(prediction))


def f1_score(gold: str, prediction: str) -> float:
    """Harmonic mean of precision and recall over the multisets of words; with no words on a side, 1 if on both."""
    wanted, found = normalize_answer(gold).split(), normalize_answer(prediction).split()
    if not wanted or not found:
        return float(wanted == found)
    same = sum((Counter(wanted) & Counter(found)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(found), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def question_scores(question: SquadQuestion, prediction: str) -> QuestionScore:
    """The best over the marked answers, each score for itself; answers without words are left out, as in the script."""
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
    """The threshold with the highest total, chosen on the same questions that it is scored on.

    Begins with every question given up and takes predictions up in the order of their no-answer scores. As in the
    script, questions with equal scores are taken one by one, in their order in the file, although no threshold parts
    them, and 0 is the threshold where nothing is won.
    """
    total = best = float(sum(not question.has_answer for question in questions))
    threshold = 0.0
    for place in sorted(range(len(questions)), key=lambda place: no_answer_scores[place]):
        if questions[place].has_answer:
            total += scores[place]
        elif predictions[place]:
            total -= 1
        if total > best:
            best, threshold = total, no_answer_scores[place]
    return Threshold(100 * best / len(questions), threshold)
