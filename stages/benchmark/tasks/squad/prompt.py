"""SQuAD 2.0 by prompting: a question's prompt, cut to fit the network's context, and what its answer says.

The prompt names the convention for unanswerable questions, then shows title, passage and question under the headings
that lm-evaluation-harness's `squadv2` task uses. A passage that does not fit is cut to the run of words that shares the
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


def prompt(question: SquadQuestion, count_tokens: CountTokens, room: int) -> str:
    """The text that the network goes on from.

    Args:
        question: what is asked.
        count_tokens: length of a text in the network's tokens.
        room: most tokens of the prompt: the context length less the tokens to be generated.

    Returns:
        A prompt that fits, with as much of the passage as does; without any of it where not even the rest fits.
    """
    whole = _filled(question, question.context)
    if count_tokens(whole) <= room:
        return whole
    words = question.context.split()
    # Most tokenizers cut at spaces, so that the words' counts add up; where they do not, the loop below mends it.
    counts = [count_tokens(f" {word}") for word in words]
    budget = room - count_tokens(_filled(question, ""))
    while budget > 0:
        first, last = best_window(words, counts, budget, question.question)
        text = _filled(question, " ".join(words[first:last]))
        excess = count_tokens(text) - room
        if excess <= 0:
            return text
        budget -= excess
    return _filled(question, "")


def best_window(words: Sequence[str], counts: Sequence[int], budget: int, question: str) -> tuple[int, int]:
    """The run of words [first, last) within the budget that holds the most distinct words of the question.

    Of equally good ones the middle one, so that the shared words do not lie at its edge.

    Args:
        words: of the passage.
        counts: tokens of each word.
        budget: most tokens of the run.
        question: its words count once normalized, so that neither articles nor punctuation do.
    """
    asked = set(normalize_answer(question).split())
    shared = [asked & set(normalize_answer(word).split()) for word in words]
    sums = [0, *accumulate(counts)]
    inside: Counter[str] = Counter()
    best, equal, first = -1, [(0, 0)], 0
    for last in range(1, len(words) + 1):
        inside.update(shared[last - 1])
        while sums[last] - sums[first] > budget:
            inside.subtract(shared[first])
            first += 1
        if last < len(words) and sums[last + 1] - sums[first] <= budget:
            continue  # one more word fits
        overlap = sum(count > 0 for count in inside.values())
        if overlap > best:
            best, equal = overlap, []
        if overlap == best:
            equal.append((first, last))
    return equal[len(equal) // 2]


def predicted_answer(generated: str) -> str:
    """The generation up to the end of its line; `NO_ANSWER` where that is empty or says unanswerable."""
    text = generated.partition("\n")[0].strip()
    return NO_ANSWER if normalize_answer(text) in ("", UNANSWERABLE) else text


def _filled(question: SquadQuestion, passage: str) -> str:
    return (
        f"{INSTRUCTION}\n\nTitle: {question.title}\n\nBackground: {passage}\n\n"
        f"Question: {question.question.strip()}\n\nAnswer:"
    )
