"""Markdown and reStructuredText as plain text: prose, headings as lines, lists with dashes, code unchanged.

- `read_markdown`: by markdown-it-py (CommonMark and tables)
- `read_rst`: by docutils; Sphinx extensions keep their content

Front matter (YAML, TOML, or the header of a Python Enhancement Proposal) is stored in the metadata. No other files are
read: includes and raw output are disabled.
"""

import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import docutils.core
import docutils.nodes as n
import yaml
from docutils.utils import SystemMessage
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from stages.ingest.record_fields import iso_date
from stages.ingest.records import Failure, Record

MAX_CHARACTERS = 4_000_000
"""Documentation is far below, and the time of both parsers is superlinear."""
_FRONT_MATTER = re.compile(
    r"\A\ufeff?(---|\+\+\+)[ \t]*\r?\n(.*?)^(?:\1|(?<=[^\n]\n)\.\.\.)[ \t]*\r?(?:\n|\Z)", re.S | re.M
)
_FIELD_LINE = re.compile(r"[ \t]|[\w\"'][^:\n]{0,60}:(?:[ \t]|$)|[-#\]}]|[\w.-]+[ \t]*=|\[|[?:][ \t]")
"""A line of front matter: a field, an explicit key, an item, a comment, or one that is indented or closes a list."""
_MAIL_HEADER = re.compile(r"\A\ufeff?((?:[A-Z][A-Za-z-]*:(?: .*)?\n(?:[ \t]+\S.*\n)*){2,})\n")
_MAIL_FIELD = re.compile(r"^([A-Z][A-Za-z-]*):(.*(?:\n[ \t]+.*)*)", re.M)
_KEPT_FIELDS = {"title": "title", "author": "author", "authors": "author", "status": "status", "tags": "tags"}
_LANGUAGE = re.compile(r"[a-z]{2}(?=[-_]|$)")
_TEMPLATE_TAG = re.compile(r"\{\{[<%]|\{%|^\{:[^\n]*\}[ \t]*$|\{:[^}\n{]*\}", re.M)
"""Hugo's shortcodes and Liquid's tags (their beginnings), and kramdown's attributes: text for Markdown parsers."""
_TEMPLATE_ENDS = {"{{<": re.compile(r"[>%]\}\}"), "{{%": re.compile(r"[>%]\}\}"), "{%": re.compile(r"%\}")}
_HTML_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_HTML_BEGIN = re.compile(r"<!--|<(?:script|style)\b", re.I)
_HTML_ENDS = {
    "<!--": re.compile("-->"), "<script": re.compile(r"</script\s*>", re.I),
    "<style": re.compile(r"</style\s*>", re.I),
}  # fmt: skip
_BLANK_LINES = re.compile(r"\n\s*\n")

_ROLE = re.compile(r":[\w:+.-]{1,100}:`([^`<]*?)\s*(?:<[^`]*>)?`")
_DIRECTIVE = re.compile(r"\.\. (?:\|[^|]+\| )?([\w:+.-]+)::[^\n]*\n?(?:[ \t]+:[\w-]+:[^\n]*\n)*")
_WITHOUT_PROSE = frozenset(("toctree", "index", "highlight", "tabularcolumns", "image", "ifconfig", "only", "plot"))
_RST_SETTINGS = {
    "report_level": 1,  # keeps unknown markup in the tree; nothing is printed
    "halt_level": 5,
    "warning_stream": "",
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "_disable_config": True,
    "doctitle_xform": False,
    "docinfo_xform": False,
    "smart_quotes": False,
    "syntax_highlight": "none",
    "line_length_limit": 1_000_000,
}
_UNPRINTED = (
    n.comment, n.substitution_definition, n.target, n.image, n.raw, n.pending, n.meta, n.decoration,
    n.footnote_reference, n.citation_reference,
)  # fmt: skip


def read_markdown(text: str) -> Record | Failure:
    """A Markdown text; HTML tags are removed, their content is kept."""
    matter, body = _split_front_matter(text)
    if len(body) > MAX_CHARACTERS:
        return Failure(0, "too_long", f"{len(body)} characters of Markdown")
    tree = SyntaxTreeNode(_markdown().parse(_without(_TEMPLATE_TAG, _TEMPLATE_ENDS, body)))
    return _record(matter, _markdown_blocks(tree.children))


def read_rst(text: str) -> Record | Failure:
    """A reStructuredText document; directives and roles unknown to docutils are replaced by their content."""
    matter, body = _split_front_matter(text)
    if len(body) > MAX_CHARACTERS:
        return Failure(0, "too_long", f"{len(body)} characters of reStructuredText")
    try:
        return _record(matter, _rst_blocks(_rst_tree(body)))
    except (SystemMessage, RecursionError, AttributeError, ValueError, IndexError) as error:  # bugs of the parser
        return Failure(0, "unreadable_markup", f"{type(error).__name__}: {error}"[:200])


def _record(matter: Mapping[str, Any], blocks: Iterator[str]) -> Record | Failure:
    text = "\n\n".join(block for block in blocks if block.strip())
    if not text:
        return Failure(0, "no_text")
    date = iso_date(_one_line(matter.get("date") or matter.get("created")))
    language = _LANGUAGE.match(_one_line(matter.get("lang") or matter.get("language")).lower())
    licence = _one_line(matter.get("licence") or matter.get("license")) or None
    metadata = {kept: value for name, kept in _KEPT_FIELDS.items() if (value := _one_line(matter.get(name)))}
    return Record(0, text, language=language[0] if language else None, licence=licence, date=date, metadata=metadata)


def _split_front_matter(text: str) -> tuple[Mapping[str, Any], str]:
    if match := _FRONT_MATTER.match(text):
        try:
            matter = yaml.load(match[2], _PlainLoader) if match[1] == "---" else tomllib.loads(match[2])
        except (yaml.YAMLError, tomllib.TOMLDecodeError, ValueError, RecursionError):
            matter = None
        lines = [line for line in match[2].split("\n") if line.strip()]
        if isinstance(matter, dict) or (matter is None and all(map(_FIELD_LINE.match, lines))):
            return {str(name).lower(): value for name, value in (matter or {}).items()}, text[match.end() :]
    if match := _MAIL_HEADER.match(text):
        fields = _MAIL_FIELD.findall(match[1])
        return {name.lower(): " ".join(value.split()) for name, value in fields}, text[match.end() :]
    return {}, text


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: a few of them name an object of a billion parts, or one that contains itself."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Node of the next event.

        Raises:
            ComposerError: if it is an alias.
        """
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not read", None)
        return super().compose_node(parent, index)


def _without(begin: re.Pattern[str], ends: Mapping[str, re.Pattern[str]], text: str) -> str:
    """Text without the matches; those in `ends` extend to the next match of their end, if there is one.

    Linear in the text: an end that was not found once is not searched for again.
    """
    kept, position, missing = [], 0, set()
    for match in begin.finditer(text):
        opening = match[0].lower()
        if match.start() < position or opening in missing:
            continue
        stop = match.end()
        if opening in ends:
            end = ends[opening].search(text, stop)
            if end is None:
                missing.add(opening)
                continue
            stop = end.end()
        kept.append(text[position : match.start()])
        position = stop
    return "".join([*kept, text[position:]])


def _one_line(value: object) -> str:
    """Front matter value as a single line."""
    if isinstance(value, list):
        return ", ".join(_one_line(item) for item in value)
    return "" if value is None or isinstance(value, dict) else " ".join(str(value).split())


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table")


def _markdown_blocks(nodes: Sequence[SyntaxTreeNode]) -> Iterator[str]:
    for node in nodes:
        if node.type in ("paragraph", "heading"):
            yield _markdown_inline(node).strip()
        elif node.type in ("bullet_list", "ordered_list"):
            yield _listing(node.type == "ordered_list", (_markdown_blocks(item.children) for item in node.children))
        elif node.type in ("fence", "code_block"):
            yield node.content.rstrip()
        elif node.type == "html_block":
            yield _BLANK_LINES.sub("\n\n", _HTML_TAG.sub("", _without(_HTML_BEGIN, _HTML_ENDS, node.content))).strip()
        elif node.type == "tr":
            yield " | ".join(_markdown_inline(cell) for cell in node.children)
        elif node.type == "table":
            yield "\n".join(row for part in node.children for row in _markdown_blocks(part.children))
        elif node.type == "blockquote":
            yield from _markdown_blocks(node.children)


def _markdown_inline(node: SyntaxTreeNode) -> str:
    if node.type in ("text", "code_inline"):
        return node.content
    if node.type in ("softbreak", "hardbreak"):
        return " " if node.type == "softbreak" else "\n"
    if node.type in ("image", "html_inline"):
        return ""
    return "".join(_markdown_inline(child) for child in node.children)


def _rst_tree(text: str) -> n.document:
    # Roles and directives have localized names; the parser's language is English, as that of nearly all text.
    return docutils.core.publish_doctree(text, settings_overrides=_RST_SETTINGS)


def _rst_blocks(node: n.Node) -> Iterator[str]:
    for child in node.children:
        if isinstance(child, n.system_message):
            yield from _unknown_directive(child)
        elif isinstance(child, n.literal_block | n.doctest_block | n.math_block):
            yield child.astext().rstrip()
        elif isinstance(child, n.bullet_list | n.enumerated_list):
            yield _listing(isinstance(child, n.enumerated_list), (_rst_blocks(item) for item in child.children))
        elif isinstance(child, n.definition_list_item):
            *terms, definition = child.children
            yield "\n".join([" ".join(_rst_inline(term) for term in terms), *_rst_blocks(definition)])
        elif isinstance(child, n.field):
            name, body = child.children
            yield f"{name.astext()}: " + "\n".join(_rst_blocks(body))
        elif isinstance(child, n.row):
            yield " | ".join(" ".join(_rst_blocks(cell)) for cell in child.children)
        elif isinstance(child, n.tgroup):
            yield "\n".join(row for part in child.children for row in _rst_blocks(part))
        elif isinstance(child, n.line_block):
            yield "\n".join(_lines(child))
        elif isinstance(child, n.TextElement) and not isinstance(child, _UNPRINTED):
            yield _rst_inline(child)
        elif not isinstance(child, _UNPRINTED):
            yield from _rst_blocks(child)


def _rst_inline(node: n.Node) -> str:
    if isinstance(node, n.Text):
        return " ".join(str(node).split("\n"))
    if isinstance(node, _UNPRINTED):
        return ""
    if isinstance(node, n.problematic):
        return _ROLE.sub(r"\1", node.astext())
    text = ""
    for child in node.children:
        if isinstance(child, n.footnote_reference | n.citation_reference):
            text = text.rstrip()
        text += _rst_inline(child)
    return text


def _unknown_directive(message: n.system_message) -> Iterator[str]:
    """Content of an unknown directive; other messages of the parser contain no text of the document."""
    source = next((child.astext() for child in message.children if isinstance(child, n.literal_block)), "")
    directive = _DIRECTIVE.match(source)
    if directive and directive[1] not in _WITHOUT_PROSE and "Unknown directive" in message.astext():
        yield from _rst_blocks(_rst_tree(textwrap.dedent(source[directive.end() :])))


def _lines(block: n.line_block) -> Iterator[str]:
    for line in block.children:
        yield from _lines(line) if isinstance(line, n.line_block) else [_rst_inline(line)]


def _listing(ordered: bool, items: Iterator[Iterator[str]]) -> str:
    """List with an item per line; further paragraphs and nested lists are indented."""
    lines: list[str] = []
    for number, blocks in enumerate(items, 1):
        marker = f"{number}. " if ordered else "- "
        entry = "\n".join(block for block in blocks if block.strip())
        lines.append(marker + textwrap.indent(entry, " " * len(marker)).lstrip())
    return "\n".join(lines)
