"""Random swap and random deletion of words, sentence by sentence (EDA: Wei and Zou 2019, 1901.11196, section 2).

- `swap`: exchanges pairs of words
- `delete`: removes words

EDA's texts are sentences: `alpha` times the words of a sentence are changed, one at least. Words move within their
sentence, so that lines, paragraphs and markup stay as they are, and fixed words (numbers, names, code) do not move.
"""

from collections.abc import Sequence

from stages.synthesize.method import Failure
from stages.synthesize.text.draws import Draws
from stages.synthesize.text.protected import NUMBER_WORDS
from stages.synthesize.text.words import Sentence, Word, replaced, sentences


def changes_of(sentence: Sentence, alpha: float) -> int:
    """Number of changes of a sentence: `alpha` of its words, one at least."""
    return max(1, int(alpha * len(sentence.words)))


def movable(sentence: Sentence) -> list[Word]:
    """Words of a sentence that may be changed."""
    return [word for word in sentence.words if not word.is_fixed]


def removable(text: str, sentence: Sentence) -> list[Word]:
    """Words that may be removed: not those right after a number, which could get the unit of the next word."""
    result, after_number = [], False
    for word in sentence.words:
        content = text[word.start : word.end]
        if not word.is_fixed and not after_number:
            result.append(word)
        after_number = any(map(str.isdigit, content)) or content.lower() in NUMBER_WORDS
    return result


def swap(text: str, seed: int, alpha: float) -> str | Failure:
    """Exchange two random words of each sentence, `alpha` times its words.

    Args:
        text: text that is not blank.
        seed: seed of the choices.
        alpha: changes per word of a sentence.
    """
    draws, edits = Draws(seed), []
    for sentence in sentences(text):
        words = movable(sentence)
        if len(words) < 2:
            continue
        order = list(range(len(words)))
        for _ in range(changes_of(sentence, alpha)):
            first, second = draws.sample(len(words), 2)
            order[first], order[second] = order[second], order[first]
        edits += [
            (word.start, word.end, _as_at(text[word.start : word.end], text[words[source].start : words[source].end]))
            for word, source in zip(words, order, strict=True)
        ]
    return replaced(text, edits) if edits else Failure("no sentence has two words that may be exchanged")


def _as_at(replaced_word: str, word: str) -> str:
    """A word with a capital if the word whose position it takes has one; names, which do not move, keep theirs."""
    first = word[0].upper() if replaced_word[0].isupper() else word[0].lower()
    return first + word[1:] if len(first) == 1 else word


def delete(text: str, seed: int, alpha: float) -> str | Failure:
    """Remove each word with probability `alpha`, with the space before it; a sentence keeps one word at least.

    Args:
        text: text that is not blank.
        seed: seed of the choices.
        alpha: probability of each word.
    """
    draws = Draws(seed)
    edits: list[tuple[int, int, str]] = []
    for sentence in sentences(text):
        removed = [word for word in removable(text, sentence) if draws.chance(alpha)]
        if removed and len(removed) == len(sentence.words):
            del removed[draws.below(len(removed))]
        edits += removals(text, sentence, removed)
    return replaced(text, edits) if edits else Failure("no word may be removed, or none was drawn")


def removals(text: str, sentence: Sentence, removed: Sequence[Word]) -> list[tuple[int, int, str]]:
    """Edits that remove words with one space each: that before the word, or after it at the beginning."""
    edits: list[tuple[int, int, str]] = []
    first = sentence.start  # of what is left of the sentence
    for word in removed:
        start, end = word.start, word.end
        if start == first:
            end = first = end + (end < sentence.end and text[end] == " ")
        elif text[start - 1] == " ":
            start -= 1
        edits.append((start, end, ""))
    return edits
