"""The output of SQuAD 2.0's official evaluation script (`evaluate-v2.0.py`), to compare results with."""

from collections.abc import Mapping, Sequence

from stages.benchmark.tasks.squad.data import SquadQuestion
from stages.benchmark.tasks.squad.official_scores import QuestionScore, best_threshold, question_scores


def with_threshold(question: SquadQuestion, score: float, no_answer_score: float, threshold: float) -> float:
    """The score if a prediction with a no-answer score above the threshold counts as no answer."""
    return float(not question.has_answer) if no_answer_score > threshold else score


def official_scores(
    questions: Sequence[SquadQuestion],
    predictions: Mapping[str, str],
    no_answer_scores: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> dict[str, float]:
    """The script's output.

    Args:
        questions: the questions, at least one.
        predictions: question id -> text, for every question.
        no_answer_scores: question id -> probability of no answer; the script's `--na-prob-file`.
        threshold: the script's `--na-prob-thresh`.

    Returns:
        Percentages `exact`, `f1` and the count `total`; the same with the prefixes `HasAns_` and `NoAns_`, for the
        questions with and without answer (if there are any); with no-answer scores also `best_exact`,
        `best_exact_thresh`, `best_f1`, `best_f1_thresh`.
    """
    texts = [predictions[question.question_id] for question in questions]
    scores_by_id = no_answer_scores or {}
    no_answer = [scores_by_id.get(question.question_id, 0.0) for question in questions]
    raw = [question_scores(question, text) for question, text in zip(questions, texts, strict=True)]
    kept = [
        QuestionScore(*(with_threshold(question, score, no_answer_score, threshold) for score in scores))
        for question, scores, no_answer_score in zip(questions, raw, no_answer, strict=True)
    ]
    output = _means("", kept)
    for prefix, has_answer in (("HasAns_", True), ("NoAns_", False)):
        selected = [score for question, score in zip(questions, kept, strict=True) if question.has_answer is has_answer]
        output |= _means(prefix, selected) if selected else {}
    if no_answer_scores is not None:
        for name, scores in zip(QuestionScore._fields, zip(*raw, strict=True), strict=True):
            best = best_threshold(questions, scores, texts, no_answer)
            output |= {f"best_{name}": best.score, f"best_{name}_thresh": best.threshold}
    return output


def _means(prefix: str, scores: Sequence[QuestionScore]) -> dict[str, float]:
    return {
        f"{prefix}exact": 100 * sum(score.exact for score in scores) / len(scores),
        f"{prefix}f1": 100 * sum(score.f1 for score in scores) / len(scores),
        f"{prefix}total": len(scores),
    }
