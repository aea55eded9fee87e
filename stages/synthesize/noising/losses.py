"""Losses of careless text: capitals, punctuation, words.

- `lose_case`, `lose_punctuation`: capitals and marks, outside code, markup, addresses and numbers
- `drop_words`: words (Lample et al. 2018, 1711.00043, section 2.3), or a placeholder in their place (blank noising: Xie
  et al. 2017, 1703.02573)
"""

import unicodedata
from collections.abc import Iterator

from stages.synthesize.augmentation.easy_data import movable, removable, removals
from stages.synthesize.method import Failure
from stages.synthesize.text.draws import Draws
from stages.synthesize.text.protected import Span, protected_spans
from stages.synthesize.text.words import replaced, sentences, word_spans


def lose_case(text: str, seed: int, rate: float) -> str | Failure:
    """Put sentences into lower case, each with probability `rate`."""
    draws, edits = Draws(seed), []
    for start, end in _open_spans(text, [(each.start, each.end) for each in sentences(text) if draws.chance(rate)]):
        edits.append((start, end, text[start:end].lower()))
    return replaced(text, edits) if edits else Failure("no sentence was drawn")


def lose_punctuation(text: str, seed: int, rate: float) -> str | Failure:
    """Remove punctuation between words, each mark with probability `rate`; white space stays.

    Apostrophes and hyphens within words, and marks of numbers, stay: without them, a word would be another.
    """
    draws, edits = Draws(seed), []
    words = word_spans(text)
    gaps = zip([0, *(end for _, end in words)], [*(start for start, _ in words), len(text)], strict=True)
    for start, end in _open_spans(text, [gap for gap in gaps if gap[0] < gap[1]]):
        for position in range(start, end):
            if unicodedata.category(text[position])[0] == "P" and draws.chance(rate):
                edits.append((position, position + 1, ""))
    return replaced(text, edits) if edits else Failure("no punctuation between words was drawn")


def drop_words(text: str, seed: int, rate: float, placeholder: str) -> str | Failure:
    """Drop words that are not fixed, each with probability `rate`.

    Args:
        text: text that is not blank.
        seed: seed of the choices.
        rate: probability of each word.
        placeholder: what takes the place of a dropped word; empty: its space goes too.
    """
    draws = Draws(seed)
    edits: list[tuple[int, int, str]] = []
    for sentence in sentences(text):
        words = movable(sentence) if placeholder else removable(text, sentence)
        dropped = [word for word in words if draws.chance(rate)]
        if placeholder:
            edits += [(word.start, word.end, placeholder) for word in dropped]
        else:
            edits += removals(text, sentence, dropped)
    return replaced(text, edits) if edits else Failure("no word was drawn")


def _open_spans(text: str, spans: list[Span]) -> Iterator[Span]:
    """The parts of spans, in order and without overlap, that are not protected."""
    protected = iter(protected_spans(text))
    wall = next(protected, None)
    for start, end in spans:
        while wall and wall[0] < end:
            if start < wall[0]:
                yield start, wall[0]
            start = max(start, min(wall[1], end))
            if wall[1] > end:
                break
            wall = next(protected, None)
        if start < end:
            yield start, end
