"""Parts of a text that no method changes: code, markup, addresses, numbers with their units.

- `protected_spans`: where they are
- `is_code_line`: a line that is code, a command or a row of a table
- `NUMBER_WORDS`: English words for numbers

Names are found in `words.py`, where the words around them are known. Every pattern takes time proportional to the text.
"""

import re
from collections.abc import Iterator

from stages.synthesize.text.units import CURRENCIES, OTHER_DIGITS, SCALES, UNITS

Span = tuple[int, int]
"""Offsets in code points of the first character and after the last."""

_FENCED = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_MARKUP = re.compile(r"`[^`\n]+`|<[A-Za-z/!][^<>\n]{0,1000}>|&(?:#?\w{1,32});|\bper cent\b")
_KEYWORD = re.compile(
    "(?:def|class|import|from|return|if|for|while|else|elif|try|except|with|public|private|static|var|let|const|function|"
    r"using|package|namespace|struct|enum|void|int|switch|case)\b"
)
_CODE_START = re.compile(r">>>|\$ |#!|#include|//|/\*|\*/|<\?|@\w+$|import \w+(?:[.,;]|$)|from [\w.]+ import ")
_CHUNK = re.compile(r"[^\s\u0e00-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff00-\uff20\U0001aff0-\U0003ffff]+")
"""Characters between white space and characters of scripts without spaces."""
_ODD = re.compile(rf"[\d{OTHER_DIGITS}@_\\{{}}<>=|^~$€£¥%‰°§]|://|\w[/(:.]\w|[a-zà-ÿ][A-Z]")
"""A digit, a mark of code or money, an address, an abbreviation with dots, a name in camel case."""

QUANTITY_WORDS = frozenset({*UNITS, *CURRENCIES, *SCALES})
"""Words that make a quantity of the number before them; next to another number, they would be another fact."""
_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion "
    "trillion dozen half third quarter first second fourth fifth sixth seventh eighth ninth tenth once twice double "
    "triple"
)
NUMBER_WORDS = frozenset(_NUMBER_WORDS.split())


def is_code_line(line: str) -> bool:
    """Whether a line is code, a command or a row of a table, as far as its characters say."""
    content = line.strip()
    if not content:
        return False
    last, has_marks = content[-1], any(mark in content for mark in "=()[]{}<>")
    return (
        last in "{}"
        or (last == ";" and has_marks)
        or (last in ":;{(" and _KEYWORD.match(content) is not None)
        or (has_marks and line.startswith(("    ", "\t")))
        or _CODE_START.match(content) is not None
        or content.count("|") > 1
    )


def protected_spans(text: str) -> list[Span]:
    """Spans of code, markup, addresses and numbers, in order; they may overlap."""
    spans = [match.span() for match in _FENCED.finditer(text)] if "```" in text or "~~~" in text else []
    spans += [match.span() for match in _MARKUP.finditer(text)]
    spans += _code_lines(text)
    spans += [match.span() for match in _CHUNK.finditer(text) if _ODD.search(match.group())]
    return sorted(spans)


def _code_lines(text: str) -> Iterator[Span]:
    start = 0
    for line in text.splitlines(keepends=True):
        if is_code_line(line):
            yield start, start + len(line)
        start += len(line)
