"""Sentence permutation (BART: Lewis et al. 2019, 1910.13461, section 2.2).

- `shuffle_sentences`: the sentences of a document, or of each paragraph, in random order

White space and lines stay as they are, and so do parts that are no sentences: headings, items, code and cells of
tables, which have no mark at their end.
"""

import re

from stages.synthesize.method import Failure
from stages.synthesize.text.draws import Draws
from stages.synthesize.text.protected import is_code_line
from stages.synthesize.text.words import TERMINALS, WIDE_TERMINALS, Sentence, replaced, sentences

_ENDS = tuple(TERMINALS + WIDE_TERMINALS)
_LINE_BREAK = re.compile("[\n\r\x0b\x0c\x85\u2028\u2029]")
_CLOSING = "\"'”’»)]"


def shuffle_sentences(text: str, seed: int, within_paragraphs: bool) -> str | Failure:
    """Put sentences in random order.

    Args:
        text: text that is not blank.
        seed: seed of the order.
        within_paragraphs: whether sentences stay on their line.
    """
    found = [each for each in sentences(text) if _is_sentence(text, each)]
    groups = _paragraphs(text, found) if within_paragraphs else [found]
    draws, edits = Draws(seed), []
    for group in groups:
        order = draws.shuffled(group)
        edits += [(into.start, into.end, text[each.start : each.end]) for into, each in zip(group, order, strict=True)]
    if not any(len(group) > 1 for group in groups):
        return Failure("there are no two sentences")
    return replaced(text, edits)


def _is_sentence(text: str, sentence: Sentence) -> bool:
    content = text[sentence.start : sentence.end]
    return content.rstrip(_CLOSING).endswith(_ENDS) and bool(sentence.words) and not is_code_line(content)


def _paragraphs(text: str, found: list[Sentence]) -> list[list[Sentence]]:
    """Sentences by line."""
    groups: list[list[Sentence]] = []
    for sentence in found:
        if groups and not _LINE_BREAK.search(text, groups[-1][-1].end, sentence.start):
            groups[-1].append(sentence)
        else:
            groups.append([sentence])
    return groups
