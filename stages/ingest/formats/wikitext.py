"""Prose of wikitext, without templates, tables, references and link targets, by mwparserfromhell.

- `read`: a page

The library parses templates, tags and links; the rules here select the prose, since its own `strip_code` keeps
captions, categories and remains of references.
"""

import html
import re
from collections.abc import Collection
from functools import lru_cache

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

from stages.ingest.formats.wiki_names import (
    CANONICAL_NAMESPACES,
    LANGUAGES,
    LINK_SECTIONS,
    LOCAL_NAMESPACES,
    MAGIC_WORDS,
    REDIRECT_WORDS,
)
from stages.ingest.formats.wiki_templates import shown_text
from stages.ingest.formats.wiki_typography import LITERAL, RESTORED, TAG_BEGIN, without_quotes, without_variants
from stages.ingest.records import Failure, Record

MAX_CHARACTERS = 2_000_000
"""Wikipedia's own limit is 2 MiB of wikitext."""
PROSE_WORDS = 25
"""A line with more words that is not a list item is a paragraph."""
_REDIRECT = re.compile(rf"(?:[^\n]{{0,255}}\n)?\s*#\s*(?:{'|'.join(REDIRECT_WORDS)})\b\s*:?\s*\[\[", re.I)
"""Before a link; other lines that begin so are items of a list."""
_DROPPED_TAGS = frozenset(
    ("ref", "references", "gallery", "table", "td", "th", "tr", "timeline", "imagemap", "score", "hr", "includeonly",
     "noinclude", "templatestyles", "mapframe", "maplink", "graph", "math", "chem", "ce", "hiero", "templatedata",
     "inputbox", "categorytree", "indicator", "phonos", "section")
)  # fmt: skip
_VERBATIM = frozenset(("nowiki", "pre", "source", "syntaxhighlight"))
"""Tags whose contents are no markup."""
_MARKERS = {"li": "- ", "dt": "", "dd": ""}
"""Replacement of `*`, `#`, `;` and `:` at the beginning of a line, which the library parses as tags."""
UNSPACED = "\u0e00"
"""From Thai on, most scripts have no spaces between words; two letters count as one."""
_MAGIC_WORD = re.compile(rf"__(?:{'|'.join(MAGIC_WORDS)})__|^__(?=[^\W\d_a-z]*[^\W\d_\0-\x7f])[^\W\da-z]+__$", re.M)
"""One of the closed list, or in other scripts one that is alone in its line."""
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][\da-fA-F]{1,6}|[A-Za-z]{2,32}\d{0,2});")
_TAGS = re.findall(
    r"\w+",
    """
    a abbr b bdi bdo big blockquote body br caption center chem charinsert ce cite code col colgroup data dd del dfn div
    dl dt em font form gallery graph h1 h2 h3 h4 h5 h6 hiero hr html i iframe imagemap img includeonly indicator input
    inputbox ins kbd languages li link mapframe maplink mark math meta noinclude nowiki ol onlyinclude p poem pre q rb
    ref references rp rt rtc ruby s samp score section small source span strike strong sub sup syntaxhighlight table
    tbody td templatedata templatestyles tfoot th thead time timeline tr translate tt tvar u ul var wbr
    """,
)
"""Tags of MediaWiki, its extensions and HTML; others, such as `<int>` and `<stdio.h>`, are shown as they are."""
_LEFTOVER = re.compile(
    r"^[^\S\n]*(?:\{\||\|[-}+]|!\s|\|).*$|\{\{|\}\}|\[\[|\]\]"
    rf"|(?i:</?(?:{'|'.join(_TAGS)})(?:\s*/?|\s+[\w:-]+\s*=[^<>\n]{{0,300}})>)",
    re.M,
)
_UNCLOSED_TAG = re.compile(r"<(?=[a-zA-Z/][^<>]*(?:<|\Z))")
_PAIRED = "ref|small|sup|sub|div|span|b|i|u|s|center|blockquote|nowiki|pre|code|source|syntaxhighlight|gallery|math"
_CLOSING_TAG = re.compile(rf"</({_PAIRED})\s*>", re.I)
_OPENING_TAG = re.compile(rf"<(?=({_PAIRED})\b[^<>]*(?<!/)>)", re.I)
"""Text for the parser too, which reads to the end of the page for each of them."""
_EMPTY_BRACKETS = re.compile(r"\(\s*(?:[;,]\s*)?\)|\[\s*\]")
_OPENING_PUNCTUATION = re.compile(r"\(\s*[;,]\s*")
_CLOSING_PUNCTUATION = re.compile(r"[^\S\n]?[;,][^\S\n]?(?=\))|, (?=;)")
"""Before a closing parenthesis or a semicolon, as what was between them was no text."""
_SPACES = re.compile(r"[^\S\n]{2,}")
_BLANK_LINES = re.compile(r"\n\s*\n\s*\n+")


def read(text: str, namespaces: Collection[str] = ()) -> Record | Failure:
    """A page: paragraphs, headings as separate lines, list items with a dash.

    Args:
        text: the wikitext.
        namespaces: names of the wiki's own namespaces, whose pages are no articles; those of many languages if empty.
    """
    if _REDIRECT.match(text):
        return Failure(0, "redirect")
    if len(text) > MAX_CHARACTERS:
        return Failure(0, "too_long", f"{len(text)} characters of wikitext")
    try:
        parsed = mwparserfromhell.parse(_without_unclosed_tags(text), skip_style_tags=True)
        prose = _prose(parsed, _namespaces(tuple(namespaces)))
    except (RecursionError, mwparserfromhell.parser.ParserError) as error:
        return Failure(0, "unreadable_wikitext", type(error).__name__)
    cleaned = _without_link_sections(_tidied(prose)).translate(RESTORED).strip()
    return Record(0, cleaned) if cleaned else Failure(0, "no_text")


def _without_unclosed_tags(text: str) -> str:
    """Wikitext in which the beginnings of tags that never end are text."""
    text = _UNCLOSED_TAG.sub(TAG_BEGIN, text)
    last = {match[1].lower(): match.start() for match in _CLOSING_TAG.finditer(text)}
    return _OPENING_TAG.sub(lambda tag: TAG_BEGIN if tag.start() > last.get(tag[1].lower(), -1) else "<", text)


@lru_cache
def _namespaces(names: tuple[str, ...]) -> frozenset[str]:
    own = frozenset(name.strip().lower().replace(" ", "_") for name in names)
    return CANONICAL_NAMESPACES | (own or LOCAL_NAMESPACES)


def _prose(code: Wikicode, namespaces: frozenset[str]) -> str:
    return "".join(_node_text(node, namespaces) for node in code.nodes)


def _node_text(node: object, namespaces: frozenset[str]) -> str:
    if isinstance(node, Text):
        return _ENTITY.sub(lambda entity: html.unescape(entity[0]).translate(LITERAL), str(node.value))
    if isinstance(node, Heading):
        return f"\n\n{_prose(node.title, namespaces).strip()}\n\n"
    if isinstance(node, Wikilink):
        is_visible = str(node.title).lstrip().startswith(":") and node.text is not None
        if not is_visible and _is_no_article(str(node.title), namespaces):
            return ""
        return _prose(node.text, namespaces) if node.text is not None else str(node.title).lstrip(":").split("#")[0]
    if isinstance(node, ExternalLink):
        return _prose(node.title, namespaces) if node.title is not None else ""
    if isinstance(node, HTMLEntity):
        return str(node.normalize()).translate(LITERAL)
    if isinstance(node, Tag):
        return _tag_text(node, namespaces)
    if isinstance(node, Template):
        return shown_text(node, lambda argument: _prose(argument, namespaces))
    assert isinstance(node, Argument | Comment), type(node)
    return ""


def _is_no_article(title: str, namespaces: frozenset[str]) -> bool:
    """True for links to other namespaces and to other languages, which are written `[[de:Mühle]]`; a colon in a title
    (`CSI: Miami`, `Re:Zero`) is neither."""
    prefix, colon, rest = title.strip().removeprefix(":").partition(":")
    name = "_".join(prefix.lower().replace("_", " ").split())
    return bool(colon) and (name in namespaces or (prefix in LANGUAGES and rest == rest.lstrip()))


def _tag_text(tag: Tag, namespaces: frozenset[str]) -> str:
    name = str(tag.tag).strip().lower()
    if name in _MARKERS:
        return _MARKERS[name]
    if name in _DROPPED_TAGS:
        return ""
    if name == "br":
        return "\n"
    if name in _VERBATIM:
        return _verbatim(tag, is_code=name in ("source", "syntaxhighlight"))
    return _prose(tag.contents, namespaces) if tag.contents is not None else ""


def _verbatim(tag: Tag, is_code: bool) -> str:
    """Contents that are no markup, as literal characters; outside of code, entities are characters."""
    nodes = tag.contents.nodes if tag.contents is not None else ()
    texts = (str(node.normalize() if isinstance(node, HTMLEntity) and not is_code else node) for node in nodes)
    return "".join(texts).replace(TAG_BEGIN, "<").translate(LITERAL)


def _tidied(prose: str) -> str:
    """Prose without remains of unclosed templates, tables and tags."""
    prose = prose.replace(TAG_BEGIN, "<")
    plain = _LEFTOVER.sub("", without_quotes(without_variants(_MAGIC_WORD.sub("", prose))))
    plain = _SPACES.sub(" ", _OPENING_PUNCTUATION.sub("(", _EMPTY_BRACKETS.sub("", plain)))
    plain = _CLOSING_PUNCTUATION.sub("", plain)
    return _BLANK_LINES.sub("\n\n", "\n".join(line.strip() for line in plain.split("\n"))).strip()


def _without_link_sections(text: str) -> str:
    """Text without the final sections that contain only links and notes."""
    lines = text.split("\n")
    last_prose = max((number for number, line in enumerate(lines) if _is_prose(line)), default=-1)
    for number in range(last_prose + 1, len(lines)):
        if lines[number].strip().lower() in LINK_SECTIONS:
            return "\n".join(lines[:number]).strip()
    return text


def _is_prose(line: str) -> bool:
    unspaced = sum(character.isalpha() for character in line if character >= UNSPACED)
    return not line.startswith("- ") and max(len(line.split()), unspaced // 2) > PROSE_WORDS
