"""Wikipedia's XML dumps (MediaWiki export format), page by page in bounded memory.

- `read`: articles of a dump; one failure for XML of another kind
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import IO
from urllib.parse import quote

from lxml import etree

from stages.ingest.formats import wikitext
from stages.ingest.records import Failure, Record

ROOT = "mediawiki"
ARTICLES = "0"
"""Namespace of articles; others are talk, users, templates, files."""


def read(stream: IO[bytes]) -> Iterator[Record | Failure]:
    """Articles in the order of the dump, as plain text; redirects are failures, other namespaces are skipped.

    XML with another root element, or a dump without pages (of log entries), is a failure of the whole file.

    Args:
        stream: the decompressed dump; entities are not expanded and no external resource is loaded.
    """
    base, position = "", -1
    parts: Counter[str] = Counter()
    events = etree.iterparse(
        stream, events=("start", "end"), resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True,
        remove_comments=True, remove_pis=True,
    )  # fmt: skip
    try:
        root = next(events)[1]
        if _name(root) != ROOT:
            yield Failure(0, "not_a_dump", _root_problem(root))
            return
        for event, element in events:
            if event == "start":
                continue
            name = _name(element)
            if element.getparent() is root:
                parts[name] += 1
            if name == "base":
                base = (element.text or "").rsplit("/", 1)[0] + "/"
            elif name == "page" and _child(element, "ns") in ("", ARTICLES):
                position += 1
                yield replace(_read_page(element, base), position=position)
            if element.getparent() is root:
                element.clear()
                while element.getprevious() is not None:
                    del root[0]
        if not parts["page"]:
            yield Failure(0, "not_a_dump", f"<{ROOT}> without any <page>; it has: {_shown(parts)}")
    except etree.LxmlError as error:
        yield Failure(position + 1, "unreadable_from_here", str(error)[:200])


def _root_problem(root: etree._Element) -> str:
    return (
        f"the root element is <{_name(root)}>; XML is read if it is <{ROOT}>, a dump of MediaWiki "
        "(other files: format html or plain, or leave them out of the path)"
    )


def _name(element: etree._Element) -> str:
    """Name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _shown(parts: Counter[str]) -> str:
    return ", ".join(f"{count:,} <{name}>" for name, count in parts.most_common(3)) or "no element"


def _read_page(page: etree._Element, base: str) -> Record | Failure:
    title, text = _child(page, "title"), _child(page, "text")
    if next(page.iterchildren("{*}redirect"), None) is not None:
        return Failure(0, "redirect", title)
    article = wikitext.read(text)
    if isinstance(article, Failure):
        return replace(article, detail=article.detail or title)
    return replace(
        article,
        id=_child(page, "id") or None,
        url=base + quote(title.replace(" ", "_"), safe="/:()',") if base else None,
        date=_child(page, "timestamp")[:10] or None,
        metadata={"title": title, **article.metadata},
    )


def _child(page: etree._Element, name: str) -> str:
    child = next(page.iter(f"{{*}}{name}"), None)
    return (child.text or "").strip() if child is not None else ""
