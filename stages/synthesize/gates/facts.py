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
from collections.abc import Sequence
from decimal import Context, Decimal
from typing import NamedTuple

from stages.synthesize.text.units import CURRENCIES, OTHER_DIGITS, SCALES, UNITS

AMBIGUOUS_UNITS = {"a", "s", "t", "v", "w"}
"""Words and letters that are units only right after the number."""
ATTACHED_SCALES = {"k": 3}
"""Powers of ten by letters that are scales only right after the number; of money `m` and `b` are, too."""
NOUN_CAPITALS = ("de", "lb")
MAX_DIGITS = 60
"""Longer runs of digits are compared as they are written."""
_SIGNS = "$¢£¤¥฿\u20a0-\u20cf＄￡￥"
_CODES = "|".join(sorted(name.upper() for name in CURRENCIES if len(name) == 3 and name.isascii()))
_SPACE = "[ \u00a0\u2009\u202f]"
_ATOM = rf"(?:(?<![\w.,])\d{{1,3}}(?:{_SPACE}\d{{3}})+(?![\d'\u2019])(?:[.,]\d+)?|\d+(?:[.,'\u2019\u066b\u066c]\d+)*)"
_LETTERS = rf"[^\W\d_{OTHER_DIGITS}]+\b"
_SIGN_AFTER = rf"[{_SIGNS}](?!\s?\d)"
_NUMBER = re.compile(
    rf"(?P<minus>(?<![^\s(\[{{\"“‘«=<>~≈:])[-\u2212])?(?P<before>\b(?i:{_CODES})\s?|[A-Z]{{0,3}}[{_SIGNS}]\s?)?"
    rf"(?P<number>{_ATOM}(?:(?:[:/\u2044\u2215]{_ATOM})+|(?:-{_ATOM}){{2,}})?)"
    r"(?P<power>[eE][-+\u2212]?\d+(?!\w)|\^-?\d+|[⁺⁻]?[⁰¹²³⁴-⁹]+)?"
    rf"(?=(?P<gap>[ \u00a0\u2009\u202f-]?)(?!(?i:{_CODES})\s?\d)"
    rf"(?P<after>per[ ]cent\b|{_LETTERS}|[%‰°][CF]?|{_SIGN_AFTER})?"
    rf"(?:[ \u00a0\u202f-](?!(?i:{_CODES})\s?\d)(?P<last>{_LETTERS}|{_SIGN_AFTER}))?)"
    rf"|(?P<sign>[{OTHER_DIGITS}])"
)
_GROUPED = re.compile(
    r"\d{1,3}(?:[,'\u2019\u00a0\u2009\u202f\u066c ]\d{3})+(?:[.\u066b]\d+)?|\d{1,2}(?:,\d\d)+,\d{3}(?:\.\d+)?"
)
"""Thousands in groups, or lakhs and crores."""
_GROUPED_BY_POINTS = re.compile(r"\d{1,3}(?:\.\d{3}){2,}|\d{1,3}(?:[. \u00a0\u2009\u202f]\d{3})+,\d+")
_JOINT = re.compile("([:/\u2044\u2215-])")
_EXACT = Context(prec=MAX_DIGITS + 40)
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_SENTENCE_START = re.compile(r"(?:^|[.!?:;\u2026\u3002\n¿¡\"“”„«»'‘’(\[{*#•|–—-])\s*$")


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
    if (language or "").partition("-")[0].partition("_")[0] in NOUN_CAPITALS:
        return Changes([], [], 0)
    parent, text = _comparable(parent), _comparable(text)
    before, after = _names(parent), _names(text)
    words_before, words_after = _words(parent), _words(text)
    lost, added = sorted(before - words_after), sorted(after - words_before)
    return Changes(lost, added, len(before & words_after))


def _comparable(text: str) -> str:
    """Text in which equal words are equal strings: composed, without width and style of letters, straight quotes."""
    return unicodedata.normalize("NFKC", text).replace("\u2019", "'").replace("\u2010", "-").replace("\u2011", "-")


def _names(text: str) -> set[str]:
    return {
        _folded(match.group())
        for match in _WORD.finditer(text)
        if match.group()[0].isupper() and not _SENTENCE_START.search(text, max(0, match.start() - 8), match.start())
    } - {"i"}


def _words(text: str) -> set[str]:
    return {_folded(word) for word in _WORD.findall(text)}


def _folded(word: str) -> str:
    return word.casefold().replace("\u0307", "")  # of the Turkish dotted capital


def _fact(match: re.Match[str]) -> str:
    if match["sign"]:
        return unicodedata.normalize("NFKC", match["sign"]).replace("\u2044", "/").strip("().")
    number, minus = match["number"], "-" if match["minus"] else ""
    if len(number) > MAX_DIGITS:
        return minus + number
    atoms = [atom if _JOINT.fullmatch(atom) else _value(atom) for atom in _JOINT.split(number)]
    scale, unit = 0, ""
    before = (match["before"] or "").strip()
    currency = CURRENCIES.get(before.casefold(), before.removeprefix("US"))
    for name, is_attached in ((match["after"] or "", not match["gap"]), (match["last"] or "", False)):
        word = name.casefold()
        if is_attached and word in ATTACHED_SCALES:
            scale += ATTACHED_SCALES[word]
        elif is_attached and currency and word in ("m", "b"):
            scale += {"m": 6, "b": 9}[word]
        elif word in SCALES and not unit:
            scale += SCALES[word]
        elif word in CURRENCIES or (name and not name.isalnum() and unicodedata.category(name[0]) == "Sc"):
            currency = CURRENCIES.get(word, name)
        elif word == "per cent":
            unit = UNITS["percent"]
        elif word in UNITS and not unit and (is_attached or word not in AMBIGUOUS_UNITS):
            unit = UNITS[word]
        else:
            break
    power = (
        unicodedata.normalize("NFKC", match["power"] or "").replace("\u2212", "-").lower().replace("+", "").lstrip("^")
    )
    if power and not power.startswith("e"):
        power = f"^{power}"
    return " ".join(part for part in (minus + _written(atoms, scale) + power, unit, currency) if part)


def _written(atoms: Sequence[Decimal | str], scale: int) -> str:
    """`1130000000` and `1.13E+9` alike; parts of times, fractions, dates and versions one by one."""
    if len(atoms) == 1 and isinstance(atoms[0], Decimal):
        normal = _EXACT.normalize(_EXACT.scaleb(atoms[0], scale))
        return f"{normal:f}" if -7 < normal.adjusted() < 9 else str(normal)
    parts = [_written([atom], 0) if isinstance(atom, Decimal) else atom for atom in atoms]
    return "".join(parts).translate(_SLASHES) + (f"E+{scale}" if scale else "")


_SLASHES = {0x2044: "/", 0x2215: "/"}


def _value(written: str) -> Decimal | str:
    """Value of a number; one with several points, such as a version, as it is written."""
    digits = "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in written)
    if _GROUPED.fullmatch(digits):
        digits = re.sub("[^0-9.\u066b]", "", digits)
    elif _GROUPED_BY_POINTS.fullmatch(digits):
        digits = re.sub("[^0-9,]", "", digits)
    parts = re.split(r"[^\d]", digits)
    return digits if len(parts) > 2 else Decimal(".".join(parts))
