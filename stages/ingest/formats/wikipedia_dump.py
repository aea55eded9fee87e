"""Wikipedia's XML dumps (MediaWiki export format), page by page in bounded memory.

- `read`: articles of a dump
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import IO
from urllib.parse import quote

from lxml import etree

from stages.ingest.formats import wikitext
from stages.ingest.records import Failure, Record

ARTICLES = "0"
"""Namespace of articles; others are talk, users, templates, files."""


def read(stream: IO[bytes]) -> Iterator[Record | Failure]:
    """Articles in the order of the dump, as plain text; redirects are failures, other namespaces are skipped.

    Args:
        stream: the decompressed dump; entities are not expanded and no external resource is loaded.
    """
    base, position = "", -1
    events = etree.iterparse(
        stream, events=("end",), resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True
    )
    try:
        for _, element in events:
            name = etree.QName(element).localname
            if name == "base":
                base = (element.text or "").rsplit("/", 1)[0] + "/"
            elif name == "page":
                if _child(element, "ns") in ("", ARTICLES):
                    position += 1
                    yield replace(_read_page(element, base), position=position)
                element.clear()
                while element.getprevious() is not None:
                    del element.getparent()[0]
    except etree.LxmlError as error:
        yield Failure(position + 1, "unreadable_from_here", str(error)[:200])


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
