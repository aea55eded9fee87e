"""Hard-wrapped text joined into paragraphs, as in Project Gutenberg's books.

- `unwrap`: the text with its wrapped lines joined

A text is hard-wrapped if most of its lines are full: had the next line's first word been put at their end, they would
have passed the common width. Only paragraphs of full lines are joined; verse, lists, tables, code and headings are
left alone. A hyphen at a line's end stays unless the joined word stands elsewhere in the document without it.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

NARROWEST, WIDEST = 45, 120
"""Characters of the common width; narrower are columns and verse, wider is not wrapped by hand or by old programs."""
FULL = 0.85
"""Share of the common width that a full line reaches with the next line's first word: typists were not exact."""
MOST = 0.8
"""Share of the lines (of a paragraph, and of the text) that must be full."""
FEWEST_LINES = 8
"""Lines that another follows in their paragraph; below that the widths say nothing."""
VERSE = 0.8
"""Share of lines that begin with a capital from which a paragraph is taken for verse; prose has one in six."""

_MARKER = re.compile(r"(?:[-*+•‣◦>|#=~_.:;%$\\]|\d+[.):]|[a-zA-Z][.)]|\(\w{1,3}\)|@\w)(?:\s|$|\W)|[|{}<]")
"""Begins an item of a list, a table, a directive, a heading, a quotation or code."""
_COLUMNS = re.compile(r"\S(?: {3,}|\t)\S|[|{};]\s*$")
"""Stands in lines of tables and code."""
_INDENT = 4
"""From here on a line is code, verse or a quotation."""


def unwrap(text: str) -> tuple[str, int]:
    """Join the wrapped lines of a document.

    Returns:
        The text, and how many lines were joined to the one before them.
    """
    paragraphs = _paragraphs(text.split("\n"))
    width = _common_width(paragraphs)
    if width is None:
        return text, 0
    joined, result = 0, []
    known: set[str] = set()
    for paragraph in paragraphs:
        if len(paragraph) > 1 and _is_wrapped_prose(paragraph, width):
            if not known and any(line.endswith("-") for line in paragraph):
                known = set(re.findall(r"\w+(?:-\w+)*", text.lower()))
            joined += len(paragraph) - 1
            result.append(_join(paragraph, known))
        else:
            result += paragraph
    return "\n".join(result), joined


def _paragraphs(lines: Sequence[str]) -> list[list[str]]:
    """Runs of lines; a blank line is one of its own."""
    found: list[list[str]] = []
    for line in lines:
        if line.strip() and found and found[-1][-1].strip():
            found[-1].append(line)
        else:
            found.append([line])
    return found


def _common_width(paragraphs: Sequence[Sequence[str]]) -> float | None:
    """Width that the text is wrapped at, or None where it is not."""
    reaches = sorted((_reach(line, after), len(line)) for one in paragraphs for line, after in pairwise(one))
    if len(reaches) < FEWEST_LINES:
        return None
    width = sorted(length for _, length in reaches)[int(0.95 * (len(reaches) - 1))]
    full = sum(reach >= FULL * width for reach, _ in reaches) / len(reaches)
    return width if NARROWEST <= width <= WIDEST and full >= MOST else None


def _reach(line: str, after: str) -> int:
    """Characters of the line with the next one's first word at its end."""
    return len(line) + 1 + len(after.split(None, 1)[0])


def _is_wrapped_prose(paragraph: Sequence[str], width: float) -> bool:
    if any(len(line) - len(line.lstrip()) >= _INDENT for line in paragraph[1:]):
        return False
    if any(_MARKER.match(line.lstrip()) or _COLUMNS.search(line) for line in paragraph):
        return False
    if max(map(len, paragraph)) > WIDEST:
        return False
    full = sum(_reach(line, after) >= FULL * width for line, after in pairwise(paragraph))
    if full < MOST * (len(paragraph) - 1):
        return False
    capitals = sum(line.lstrip()[0].isupper() for line in paragraph)
    return len(paragraph) < 3 or capitals < VERSE * len(paragraph)


def _join(paragraph: Sequence[str], known: set[str]) -> str:
    text = paragraph[0]
    for line in map(str.strip, paragraph[1:]):
        if not text.endswith("-"):
            text = f"{text} {line}"
        elif text.endswith("--"):
            text += line
        else:
            text = _join_at_hyphen(text, line, known)
    return text


def _join_at_hyphen(text: str, line: str, known: set[str]) -> str:
    """`exam-` and `ple` become `example` only where the document has that word and not `exam-ple`."""
    head = re.search(r"(\w+)-$", text)
    tail = re.match(r"\w+", line)
    if head and tail and line[0].islower():
        first, second = head[1].lower(), tail[0].lower()
        if first + second in known and f"{first}-{second}" not in known:
            return text[:-1] + line
    return text + line
