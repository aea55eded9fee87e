"""Prose of wikitext, without templates, tables, references and link targets, by mwparserfromhell.

- `read`: a page

The library parses templates, tags and links; the rules here select the prose, since its own `strip_code` keeps
captions, categories and remains of references.
"""

import html
import re

import mwparserfromhell
from mwparserfromhell.nodes import (
    Argument,
    Comment,
    ExternalLink,
    Heading,
    HTMLEntity,
    Tag,
    Template,
    Text,
    Wikilink,
)
from mwparserfromhell.wikicode import Wikicode

from stages.ingest.records import Failure, Record

MAX_CHARACTERS = 2_000_000
"""Wikipedia's own limit is 2 MiB of wikitext."""
PROSE_WORDS = 25
"""A line with more words that is not a list item is a paragraph."""
_REDIRECT = re.compile(
    r"(?:[^\n]{0,255}\n)?\s*#\s*(?:redirect|weiterleitung|redirection|redirección|rinvia|перенаправление)\b", re.I
)
_NOT_PROSE = re.compile(
    r"\s*:?(?:file|image|category|media|user|template|wikipedia|help|portal|special|[a-z]{2,3}(?:-[a-z]+)?)\s*:", re.I
)
_DROPPED_TAGS = frozenset(
    ("ref", "references", "gallery", "table", "td", "th", "tr", "timeline", "imagemap", "score", "hr", "includeonly",
     "noinclude", "templatestyles", "mapframe", "graph", "math", "chem", "ce")
)  # fmt: skip
_MARKERS = {"li": "- ", "dt": "", "dd": ""}
"""Replacement of `*`, `#`, `;` and `:` at the beginning of a line, which the library parses as tags."""
_MAGIC_WORD = re.compile(r"__[A-Z]{3,}__")
_LEFTOVER = re.compile(r"^[^\S\n]*(?:\{\||\|[-}+]|!\s|\|).*$|\{\{|\}\}|\[\[|\]\]|</?[a-zA-Z][^<>\n]{0,200}>", re.M)
_UNCLOSED_TAG = re.compile(r"<(?=[a-zA-Z/][^<>]*(?:<|\Z))")
"""Text for the parser too, which reads to the end of the page for each of them."""
_EMPTY_BRACKETS = re.compile(r"\(\s*(?:[;,]\s*)?\)|\[\s*\]")
_OPENING_PUNCTUATION = re.compile(r"\(\s*[;,]\s*")
_SPACES = re.compile(r"[^\S\n]{2,}")
_BLANK_LINES = re.compile(r"\n\s*\n\s*\n+")
_LINK_SECTIONS = frozenset(
    ("references", "external links", "see also", "notes", "further reading", "bibliography", "footnotes", "sources",
     "notes and references", "citations", "gallery")
)  # fmt: skip


def read(text: str) -> Record | Failure:
    """A page: paragraphs, headings as separate lines, list items with a dash."""
    if _REDIRECT.match(text):
        return Failure(0, "redirect")
    if len(text) > MAX_CHARACTERS:
        return Failure(0, "too_long", f"{len(text)} characters of wikitext")
    try:
        parsed = mwparserfromhell.parse(_UNCLOSED_TAG.sub("&lt;", text), skip_style_tags=True)
        prose = _prose(parsed)
    except (RecursionError, mwparserfromhell.parser.ParserError) as error:
        return Failure(0, "unreadable_wikitext", type(error).__name__)
    cleaned = _without_link_sections(_tidied(prose))
    return Record(0, cleaned) if cleaned else Failure(0, "no_text")


def _prose(code: Wikicode) -> str:
    return "".join(_node_text(node) for node in code.nodes)


def _node_text(node: object) -> str:
    if isinstance(node, Text):
        return str(node.value)
    if isinstance(node, Heading):
        return f"\n\n{_prose(node.title).strip()}\n\n"
    if isinstance(node, Wikilink):
        if _NOT_PROSE.match(str(node.title)):
            return ""
        return _prose(node.text) if node.text is not None else str(node.title).lstrip(":").split("#")[0]
    if isinstance(node, ExternalLink):
        return _prose(node.title) if node.title is not None else ""
    if isinstance(node, HTMLEntity):
        return str(node.normalize())
    if isinstance(node, Tag):
        return _tag_text(node)
    assert isinstance(node, Template | Argument | Comment), type(node)
    return ""


def _tag_text(tag: Tag) -> str:
    name = str(tag.tag).strip().lower()
    if name in _MARKERS:
        return _MARKERS[name]
    if name in _DROPPED_TAGS:
        return ""
    if name == "br":
        return "\n"
    return _prose(tag.contents) if tag.contents is not None else ""


def _tidied(prose: str) -> str:
    """Prose without remains of unclosed templates, tables and tags."""
    plain = _LEFTOVER.sub("", _MAGIC_WORD.sub("", html.unescape(prose)).replace("'''", "").replace("''", ""))
    plain = _SPACES.sub(" ", _OPENING_PUNCTUATION.sub("(", _EMPTY_BRACKETS.sub("", plain)))
    return _BLANK_LINES.sub("\n\n", "\n".join(line.strip() for line in plain.split("\n"))).strip()


def _without_link_sections(text: str) -> str:
    """Text without the final sections that contain only links and notes."""
    lines = text.split("\n")
    last_prose = max((number for number, line in enumerate(lines) if _is_prose(line)), default=-1)
    for number in range(last_prose + 1, len(lines)):
        if lines[number].strip().lower() in _LINK_SECTIONS:
            return "\n".join(lines[:number]).strip()
    return text


def _is_prose(line: str) -> bool:
    return not line.startswith("- ") and len(line.split()) > PROSE_WORDS
