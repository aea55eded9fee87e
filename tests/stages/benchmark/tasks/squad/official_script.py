"""The output of SQuAD 2.0's official evaluation script (`evaluate-v2.0.py`), to compare results with."""

from collections.abc import Mapping, Sequence

from stages.benchmark.tasks.squad.data import SquadQuestion
from stages.benchmark.tasks.squad.official_scores import QuestionScore, best_threshold, question_scores


def with_threshold(question: SquadQuestion, score: float, no_answer_score: float, threshold: float) -> float:
    """The score once a prediction whose no-answer score is above the threshold is given up."""
    return float(not question.has_answer) if no_answer_score > threshold else score


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
