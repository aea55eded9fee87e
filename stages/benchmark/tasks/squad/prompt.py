"""Prompts for SQuAD 2.0, truncated to the network's context, and the answer extracted from a generation.

The prompt states the convention for unanswerable questions, then title, passage and question under the headings of
lm-evaluation-harness's `squadv2` task. A passage that does not fit is truncated to the window of words that shares the
most words with the question.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate

from stages.benchmark.tasks.squad.data import SquadQuestion
from stages.benchmark.tasks.squad.official_scores import NO_ANSWER, normalize_answer

UNANSWERABLE = "unanswerable"
INSTRUCTION = f"Answer with words of the background, or with '{UNANSWERABLE}' where it holds no answer."

CountTokens = Callable[[str], int]


def prompt(question: SquadQuestion, count_tokens: CountTokens, max_tokens: int) -> str:
    """Prompt for a question, with as much of the passage as fits.

    Args:
        question: the question with its passage.
        count_tokens: number of a text's tokens.
        max_tokens: limit of the prompt's tokens: the context length less the tokens to be generated.

    Returns:
        The prompt; without a passage, and possibly over the limit, if the other parts leave no tokens for it.
    """
    whole = _fill(question, question.context)
    if count_tokens(whole) <= max_tokens:
        return whole
    words = question.context.split()
    # Most tokenizers split at spaces, so the words' counts add up; if they do not, the loop reduces the budget.
    counts = [count_tokens(f" {word}") for word in words]
    budget = max_tokens - count_tokens(_fill(question, ""))
    while budget > 0:
        first, last = best_window(words, counts, budget, question.question)
        text = _fill(question, " ".join(words[first:last]))
        excess = count_tokens(text) - max_tokens
        if excess <= 0:
            return text
        budget -= excess
    return _fill(question, "")


def best_window(words: Sequence[str], counts: Sequence[int], budget: int, question: str) -> tuple[int, int]:
    """The window of words [first, last) within the budget that contains the most distinct words of the question.

    Of equally good windows the middle one, so that the shared words are not at its edge.

    Args:
        words: words of the passage.
        counts: tokens of each word.
        budget: limit of the window's tokens.
        question: the question, normalized for the comparison, without articles and punctuation.
    """
    question_words = set(normalize_answer(question).split())
    shared = [question_words & set(normalize_answer(word).split()) for word in words]
    sums = [0, *accumulate(counts)]
    inside: Counter[str] = Counter()
    best, windows, first = -1, [(0, 0)], 0
    for last in range(1, len(words) + 1):
        inside.update(shared[last - 1])
        while sums[last] - sums[first] > budget:
            inside.subtract(shared[first])
            first += 1
        if last < len(words) and sums[last + 1] - sums[first] <= budget:
            continue  # another word fits
        overlap = sum(count > 0 for count in inside.values())
        if overlap > best:
            best, windows = overlap, []
        if overlap == best:
            windows.append((first, last))
    return windows[len(windows) // 2]


def predicted_answer(generated: str) -> str:
    """The generated text up to the end of the line; `NO_ANSWER` if that is empty or 'unanswerable'."""
    text = generated.partition("\n")[0].strip()
    return NO_ANSWER if normalize_answer(text) in ("", UNANSWERABLE) else text


def _fill(question: SquadQuestion, passage: str) -> str:
    return (
        f"{INSTRUCTION}\n\nTitle: {question.title}\n\nBackground: {passage}\n\n"
        f"Question: {question.question.strip()}\n\nAnswer:"
    )
