"""Facts that a rewritten text must keep: numbers with their units and currencies, and names.

- `numbers`: numbers of a text in a form that only depends on their meaning
- `changed_numbers`, `changed_names`: what only one of two texts has

`$1.13bn`, `1.13 billion dollars` and `$1,130,000,000` are the same number; `1.13 trillion dollars` is another, and so
are `1.13` and `1.13 kg`. Digits of every script count. A name is a word that begins with a capital within a sentence;
in languages that capitalize all nouns, and in scripts without capitals, there is nothing to go by.
"""

import re
import unicodedata
from collections import Counter
from decimal import Decimal
from typing import NamedTuple

from stages.synthesize.text.units import CURRENCIES, SCALES, UNITS

AMBIGUOUS_UNITS = {"a", "s", "t", "v", "w"}
"""Words and letters that are units only right after the number."""
NOUN_CAPITALS = ("de", "lb")
MAX_DIGITS = 60
"""Longer runs of digits are compared as they are written."""
_NUMBER = re.compile(
    r"(?P<before>[$€£¥₹]\s?)?(?P<number>\d+(?:[.,'\u2019\u00a0\u202f\u066b\u066c]\d+)*)(?P<gap>[ \u00a0\u202f-]?)"
    r"(?P<after>[^\W\d_]+\b|[%‰°][CF]?|[$€£¥₹¢])?(?:[ \u00a0\u202f-](?P<last>[^\W\d_]+\b|[$€£¥₹¢]))?"
)
_GROUPED = re.compile(r"\d{1,3}(?:[,'\u2019\u00a0\u202f\u066c]\d{3})+(?:[.\u066b]\d+)?")
_GROUPED_BY_POINTS = re.compile(r"\d{1,3}(?:\.\d{3}){2,}")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_SENTENCE_START = re.compile(r"(?:^|[.!?:;\u2026\u3002\n\"“”«»'‘’(\[{*#•|–—-])\s*$")


class Changes(NamedTuple):
    """Facts that only one of two texts has."""

    lost: list[str]
    added: list[str]
    kept: int

    @property
    def amount(self) -> int:
        """Facts that only one of the texts has."""
        return len(self.lost) + len(self.added)

    @property
    def share(self) -> float:
        """Their share of all facts."""
        return self.amount / (self.amount + self.kept) if self.amount else 0.0

    def sentence(self) -> str | None:
        """The first few, for people."""
        parts = [f"lost {', '.join(self.lost[:3])}" if self.lost else "", f"new {', '.join(self.added[:3])}"]
        return "; ".join(part for part in parts[: 2 if self.added else 1] if part) or None


def numbers(text: str) -> Counter[str]:
    """Numbers with their unit, such as `1.13E+9 $` or `25 km`, and how often each is there."""
    return Counter(_fact(match) for match in _NUMBER.finditer(text))


def changed_numbers(parent: str, text: str) -> Changes:
    """Numbers that only one of the texts has, or has more often."""
    before, after = numbers(parent), numbers(text)
    lost, added = (sorted(counter.elements()) for counter in (before - after, after - before))
    return Changes(lost, added, (before & after).total())


def changed_names(parent: str, text: str, language: str | None) -> Changes:
    """Names that only one of the texts has; a name counts as kept if its word is there in any case."""
    if language in NOUN_CAPITALS:
        return Changes([], [], 0)
    before, after = _names(parent), _names(text)
    words_before, words_after = _words(parent), _words(text)
    lost, added = sorted(before - words_after), sorted(after - words_before)
    return Changes(lost, added, len(before & words_after))


def _names(text: str) -> set[str]:
    return {
        match.group().casefold()
        for match in _WORD.finditer(text)
        if match.group()[0].isupper() and not _SENTENCE_START.search(text, max(0, match.start() - 8), match.start())
    } - {"i"}


def _words(text: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(text)}


def _fact(match: re.Match[str]) -> str:
    if len(match["number"]) > MAX_DIGITS:
        return match["number"]
    value, unit = _value(match["number"]), ""
    currency = CURRENCIES.get((match["before"] or "").strip(), "")
    for name, is_attached in ((match["after"] or "", not match["gap"]), (match["last"] or "", False)):
        word = name.casefold()
        if word in SCALES and not unit:
            value *= 10 ** SCALES[word]
        elif is_attached and currency and word == "m":
            value *= 10**6
        elif word in CURRENCIES:
            currency = CURRENCIES[word]
        elif word in UNITS and not unit and (is_attached or word not in AMBIGUOUS_UNITS):
            unit = UNITS[word]
        else:
            break
    return " ".join(part for part in (_written(value), unit, currency) if part)


def _written(value: Decimal) -> str:
    """`1130000000` and `1.13E+9` alike."""
    normal = value.normalize()
    return f"{normal:f}" if -7 < normal.adjusted() < 9 else str(normal)


def _value(written: str) -> Decimal:
    digits = "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in written)
    if _GROUPED.fullmatch(digits) or _GROUPED_BY_POINTS.fullmatch(digits):
        grouping = "." if _GROUPED_BY_POINTS.fullmatch(digits) else ",'\u2019\u00a0\u202f\u066c"
        digits = "".join(char for char in digits if char not in grouping)
    parts = re.split(r"[^\d]", digits)
    return Decimal(parts[0] if len(parts) == 1 else f"{parts[0]}.{''.join(parts[1:])}")
