"""Hard-wrapped text joined into paragraphs, as in Project Gutenberg's books.

- `unwrap`: the text with its wrapped lines joined

A text is hard-wrapped if most of its lines are full: with the next line's first word appended they would exceed the
common width. Only paragraphs of full lines are joined; verse, lists, tables, code and headings are left alone. A hyphen
at a line's end is kept unless the joined word occurs elsewhere in the document without it.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

NARROWEST, WIDEST = 45, 120
"""Range of the common width, in characters; narrower are columns and verse, wider was not wrapped by hand or by old
programs."""
FULL = 0.85
"""Share of the common width that a full line reaches with the next line's first word: typists were not exact."""
MIN_FULL_SHARE = 0.8
"""Minimum share of full lines in a paragraph, and in the text."""
MIN_LINES = 8
"""Minimum number of lines that are not the last of their paragraph; fewer do not show a common width."""
VERSE = 0.8
"""Share of lines with an initial capital from which a paragraph counts as verse; prose has one in six."""

_MARKER = re.compile(r"(?:[-*+•‣◦>|#=~_.:;%$\\]|\d+[.):]|[a-zA-Z][.)]|\(\w{1,3}\)|@\w)(?:\s|$|\W)|[|{}<]")
"""Beginning of a list item, a table, a directive, a heading, a quotation or code."""
_COLUMNS = re.compile(r"\S(?: {3,}|\t)\S|[|{};]\s*$")
"""Occurs in lines of tables and code."""
_INDENT = 4
"""Indentation from which a line is code, verse or a quotation."""


def unwrap(text: str) -> tuple[str, int]:
    """Join the wrapped lines of a document.

    Returns:
        The text, and the number of lines that were joined to the preceding line.
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
    """Runs of nonblank lines; a blank line is a run of its own."""
    runs: list[list[str]] = []
    for line in lines:
        if line.strip() and runs and runs[-1][-1].strip():
            runs[-1].append(line)
        else:
            runs.append([line])
    return runs


def _common_width(paragraphs: Sequence[Sequence[str]]) -> float | None:
    """Width at which the text is wrapped; None if it is not wrapped."""
    reaches = sorted((_reach(line, after), len(line)) for lines in paragraphs for line, after in pairwise(lines))
    if len(reaches) < MIN_LINES:
        return None
    width = sorted(length for _, length in reaches)[int(0.95 * (len(reaches) - 1))]
    full = sum(reach >= FULL * width for reach, _ in reaches) / len(reaches)
    return width if NARROWEST <= width <= WIDEST and full >= MIN_FULL_SHARE else None


def _reach(line: str, after: str) -> int:
    """Length of the line with the next line's first word appended."""
    return len(line) + 1 + len(after.split(None, 1)[0])


def _is_wrapped_prose(paragraph: Sequence[str], width: float) -> bool:
    if any(len(line) - len(line.lstrip()) >= _INDENT for line in paragraph[1:]):
        return False
    if any(_MARKER.match(line.lstrip()) or _COLUMNS.search(line) for line in paragraph):
        return False
    if max(map(len, paragraph)) > WIDEST:
        return False
    full = sum(_reach(line, after) >= FULL * width for line, after in pairwise(paragraph))
    if full < MIN_FULL_SHARE * (len(paragraph) - 1):
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
    """`exam-` and `ple` become `example` only if the document has that word and not `exam-ple`."""
    head = re.search(r"(\w+)-$", text)
    tail = re.match(r"\w+", line)
    if head and tail and line[0].islower():
        first, second = head[1].lower(), tail[0].lower()
        if first + second in known and f"{first}-{second}" not in known:
            return text[:-1] + line
    return text + line
