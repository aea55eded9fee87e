"""Sentences of a text and the words in them, as offsets in code points; whatever is between words stays as it is.

- `sentences`: sentences of a text in any script, with their words
- `all_words`: words of a text, without borders of sentences
- `replaced`: a text with some spans replaced
- `short_spans`: a long sentence in parts

Words are those of `stages.common.word_classes`, joined by apostrophes and hyphens; scripts without spaces have units of
one ideograph, kana or orthographic cluster. A word is fixed if a change would alter a fact or break code: numbers,
names, addresses, code, markup.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from stages.common.word_classes import (
    CLOSING,
    FOLD_BITS,
    IGNORED,
    LAST_LISTED,
    LETTER,
    LETTERS_AND_DIGITS,
    MARK,
    PREFIX,
    SEPARATOR,
    STACKER,
    UNIT,
)
from stages.synthesize.text.protected import NUMBER_WORDS, QUANTITY_WORDS, Span, protected_spans

TERMINALS = ".!?…։؝؞؟۔।॥။።፧፨᙮᠃᠉៕៖"
"""Marks that end a sentence if white space follows."""
WIDE_TERMINALS = "。！？｡．"
"""Marks that end a sentence whatever follows."""
_CLOSING = "\"'”’»)]}」』）】〉》"
_SENTENCE_END = re.compile(
    rf"[{re.escape(WIDE_TERMINALS)}]+[{re.escape(_CLOSING)}]*|[{re.escape(TERMINALS)}]+[{re.escape(_CLOSING)}]*(?=\s)"
)
_ABBREVIATION = re.compile(
    r"(?:^|[^\w])(?:[A-Za-z]|mr|mrs|ms|dr|prof|st|vs|fig|no|jr|sr|inc|ltd|co|corp|gen|col|sen|rep|gov|mt|approx|cf|al"
    r"|[a-z](?:\.[a-z])+)$",
    re.IGNORECASE,
)
_LINE = re.compile(r"[^\n\r\x0b\x0c\x85\u2028\u2029]+")
_CONTENT = re.compile(r"\S(?:.*\S)?", re.DOTALL)

_JOINING = 8
"""Class of apostrophes and hyphens, which join runs of letters."""
_CLASSES = (LETTERS_AND_DIGITS >> FOLD_BITS).astype(np.uint8)
for _mark in "'’ʼ-‐‑":
    _CLASSES[ord(_mark)] = _JOINING
_CLASSES[LAST_LISTED] = LETTER  # of all code points after it


def _set(*classes: int) -> bytes:
    return b"[" + b"".join(rb"\x%02x" % value for value in classes) + b"]"


_WORD = re.compile(
    _set(PREFIX) + b"?" + _set(UNIT) + b"(?:" + _set(MARK, IGNORED) + b"|" + _set(STACKER) + _set(UNIT, LETTER) + b"?)*"
    b"|" + _set(LETTER, MARK) + b"(?:" + _set(LETTER, MARK, IGNORED, STACKER)
    + b"++|" + _set(_JOINING) + b"(?=" + _set(LETTER) + b"))*+"
)  # fmt: skip
assert {SEPARATOR, CLOSING}.isdisjoint((LETTER, MARK, PREFIX, UNIT, STACKER, IGNORED))


class Word(NamedTuple):
    """A word of a text."""

    start: int
    end: int
    is_fixed: bool
    """Whether a change would alter a fact or break code."""


class Sentence(NamedTuple):
    """A sentence, within a line: from its first to its last character that is not white space."""

    start: int
    end: int
    words: list[Word]


def word_spans(text: str) -> list[Span]:
    """All words of a text."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return [match.span() for match in _WORD.finditer(_CLASSES[np.minimum(points, LAST_LISTED)].tobytes())]


def sentences(text: str) -> list[Sentence]:
    """Sentences of a text in order, with their words; every word is in exactly one of them."""
    spans = list(_sentence_spans(text))
    words = iter(all_words(text, [start for start, _ in spans]))
    word = next(words, None)
    result = []
    for start, end in spans:
        within = []
        while word and word.start < end:
            within.append(word)
            word = next(words, None)
        result.append(Sentence(start, end, within))
    return result


def all_words(text: str, sentence_starts: Sequence[int] = ()) -> list[Word]:
    """All words of a text in order.

    Args:
        text: any text.
        sentence_starts: offsets at which a capital letter makes no name of a word that the text also has without one.
    """
    spans = word_spans(text)
    protected = protected_spans(text)
    written = {text[start:end] for start, end in spans}
    starts, words, after_number, position = set(sentence_starts), [], False, 0
    reach = 0  # end of the protected spans that began so far
    previous = 0
    for start, end in spans:
        while position < len(protected) and protected[position][0] < end:
            reach = max(reach, protected[position][1])
            position += 1
        word = text[start:end]
        opens = bool(starts) and any(at in starts for at in range(previous, start + 1))
        is_number = word[0].isdigit() or word.lower() in NUMBER_WORDS
        fixed = (
            start < reach or is_number or (word.lower() in QUANTITY_WORDS and (after_number or end - start > 1))
            or _is_name(word, opens and word.lower() in written)
        )  # fmt: skip
        words.append(Word(start, end, fixed))
        after_number, previous = is_number or (start < reach and any(map(str.isdigit, word))), end
    return words


def _is_name(word: str, is_common: bool) -> bool:
    """Whether capitals make a name of a word."""
    if word == word.lower():
        return False
    return not is_common or word[1:] != word[1:].lower()


def _sentence_spans(text: str) -> Iterator[Span]:
    for line in _LINE.finditer(text):
        start = line.start()
        for end in (*_ends(text, *line.span()), line.end()):
            content = _CONTENT.search(text, start, end)
            if content:
                yield content.span()
            start = end


def _ends(text: str, start: int, end: int) -> Iterator[int]:
    """Ends of the sentences of a line but the last."""
    for match in _SENTENCE_END.finditer(text, start, end):
        after = _following(text, match.end(), end)
        mark = match.group()
        is_abbreviation = mark == "." and _ABBREVIATION.search(text, max(start, match.start() - 12), match.start())
        if mark[0] in WIDE_TERMINALS or (after and not after.islower() and not is_abbreviation):
            yield match.end()


def _following(text: str, start: int, end: int) -> str:
    """First character of the line after its white space; empty at its end."""
    while start < end and text[start].isspace():
        start += 1
    return text[start : min(start + 1, end)]


def replaced(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    """The text with spans replaced.

    Args:
        text: any text.
        edits: (start, end, replacement), in order and without overlap.
    """
    parts, end = [], 0
    for start, next_end, replacement in edits:
        parts += [text[end:start], replacement]
        end = next_end
    return "".join([*parts, text[end:]])


def short_spans(text: str, start: int, end: int, max_characters: int) -> Iterator[Span]:
    """Parts of a span with up to `max_characters`, cut at spaces, which are left out, or anywhere in a longer word."""
    while end - start > max_characters:
        space = text.rfind(" ", start + 1, start + max_characters)
        stop = space if space > start else start + max_characters
        yield start, stop
        start = stop + (space > start)
    yield start, end
