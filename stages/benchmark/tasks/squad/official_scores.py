"""The arithmetic of SQuAD 2.0's official evaluation script (`evaluate-v2.0.py`; 1806.03822, sec. 3 and 5.1).

- `normalize_answer`, `exact_match`, `f1_score`: one prediction against one marked answer
- `question_scores`: the best of both over a question's marked answers
- `with_threshold`, `best_threshold`: predictions given up where the no-answer score is high
- `official_scores`: the script's whole table

A prediction is a text; the empty one says that the context holds no answer.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
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


def with_threshold(question: SquadQuestion, score: float, no_answer_score: float, threshold: float) -> float:
    """The score once a prediction whose no-answer score is above the threshold is given up."""
    return float(not question.has_answer) if no_answer_score > threshold else score


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


def official_scores(
    questions: Sequence[SquadQuestion],
    predictions: Mapping[str, str],
    no_answer_scores: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> dict[str, float]:
    """The script's output.

    Args:
        questions: at least one.
        predictions: question id -> text, for every question.
        no_answer_scores: question id -> how likely it is that there is no answer; the script's `--na-prob-file`.
        threshold: the script's `--na-prob-thresh`.

    Returns:
        Percentages `exact`, `f1` and the count `total`; the same with `HasAns_` and `NoAns_` before them, for the
        questions with and without answer (left out where there are none); with no-answer scores also `best_exact`,
        `best_exact_thresh`, `best_f1`, `best_f1_thresh`.
    """
    texts = [predictions[question.question_id] for question in questions]
    given_up = no_answer_scores or {}
    chances = [given_up.get(question.question_id, 0.0) for question in questions]
    raw = [question_scores(question, text) for question, text in zip(questions, texts, strict=True)]
    kept = [
        QuestionScore(*(with_threshold(question, score, chance, threshold) for score in scores))
        for question, scores, chance in zip(questions, raw, chances, strict=True)
    ]
    output = _means("", kept)
    for prefix, wanted in (("HasAns_", True), ("NoAns_", False)):
        chosen = [score for question, score in zip(questions, kept, strict=True) if question.has_answer is wanted]
        output |= _means(prefix, chosen) if chosen else {}
    if no_answer_scores is not None:
        for name, scores in zip(QuestionScore._fields, zip(*raw, strict=True), strict=True):
            best = best_threshold(questions, scores, texts, chances)
            output |= {f"best_{name}": best.score, f"best_{name}_thresh": best.threshold}
    return output


def _means(prefix: str, scores: Sequence[QuestionScore]) -> dict[str, float]:
    return {
        f"{prefix}exact": 100 * sum(score.exact for score in scores) / len(scores),
        f"{prefix}f1": 100 * sum(score.f1 for score in scores) / len(scores),
        f"{prefix}total": len(scores),
    }
