"""Wikipedia's XML dumps (MediaWiki export format), page by page in bounded memory.

- `read`: articles of a dump; one failure for XML of another kind

Pages are separated by their tags, before XML is parsed: a broken or huge page leaves the others as they are.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import IO
from urllib.parse import quote

from lxml import etree

from stages.ingest.record_fields import iso_date
from stages.ingest.records import Failure, Markup, Record, unix_line_ends
from stages.ingest.streams.bookmarks import Bookmark, Bookmarks
from stages.ingest.streams.byte_streams import as_utf8
from stages.ingest.streams.expanded_files import continued, member_at

ROOT = "mediawiki"
ARTICLES = "0"
"""Namespace of articles; others are talk, users, templates, files."""
READ_BYTES = 1 << 17
MAX_HEAD_BYTES = 1 << 18
"""Bytes before the first page that are parsed: the names of namespaces, and in other XML the root element."""
TOO_LONG = b""
_PAGE_BEGIN = re.compile(rb"<page(?=[\s>])")
_PAGE_END = b"</page>"
_END = re.compile(rb"</mediawiki\s*>")
_ENCODING = re.compile(rb"""\A\s*<\?xml[^>]{0,200}?encoding=["']([\w.-]{1,40})["']""")
_RECODED = re.compile(rb"""(\A\s*<\?xml[^>]{0,200}?)\sencoding=["'](?:utf|ucs|iso-10646)[\w.-]{1,40}["']""", re.I)
"""An encoding that `as_utf8` has replaced by UTF-8, or UTF-8 itself."""
WIKITEXT = ("", "wikitext")
"""Content models of pages in wikitext; dumps before version 0.6 name none."""
_ELEMENT = re.compile(rb"<([a-zA-Z][\w.-]{0,40})")


def read(
    stream: IO[bytes], max_bytes: int, passed_over: Counter[str] | None = None, bookmarks: Bookmarks | None = None
) -> Iterator[Record | Failure | Markup]:
    """Articles in the order of the dump, as wikitext; redirects are failures, other namespaces are passed over.

    Of a page with its history, the last revision is read. Pages without wikitext (items of Wikidata, modules in Lua,
    style sheets) are failures. XML with another root element, or a dump without pages (of log entries), is a failure
    of the whole file.

    Args:
        stream: the decompressed dump; entities are not expanded and no external resource is loaded.
        max_bytes: longer pages are failures and are not kept.
        passed_over: counts the pages of other namespaces.
        bookmarks: where to begin; receives those of this file.
    """
    passed_over = Counter() if passed_over is None else passed_over
    bookmarks = bookmarks or Bookmarks()
    pages = _Pages(as_utf8(stream, declares_encoding=True), max_bytes)
    root = _parsed_head(pages.head)
    if isinstance(root, Failure) or _name(root) != ROOT:
        yield root if isinstance(root, Failure) else Failure(0, "not_a_dump", _root_problem(root))
        return
    base = _child(root, "base").rsplit("/", 1)[0] + "/" if _child(root, "base") else ""
    namespaces = tuple(element.text or "" for element in root.iter("{*}namespace") if element.text)
    prefixes = frozenset(_prefix(name) for name in namespaces)
    encoding = _ENCODING.match(pages.head)
    parser_options = {"encoding": encoding[1].decode()} if encoding else {}
    position = bookmarks.start.position if bookmarks.start else 0
    if bookmarks.start:
        pages.jump(bookmarks.start)
    for page in pages:
        result = _read_page(page, base, (namespaces, prefixes), max_bytes, parser_options)
        if isinstance(result, Markup):
            yield replace(result, record=replace(result.record, position=position))
        elif result is not None:
            yield replace(result, position=position)
        else:
            passed_over["pages_of_other_namespaces"] += 1
        position += result is not None
        if bookmarks.is_due(pages.offset):
            bookmarks.add(pages.bookmark(position))
    if pages.count == 0 and pages.is_complete:
        yield Failure(0, "not_a_dump", f"<{ROOT}> without any <page>; it has: {_shown(pages.head)}")
    elif not pages.is_complete:
        yield Failure(position, "unreadable_from_here", f"the file ends before </{ROOT}>")


class _Pages:
    """The XML of each page; the empty string for one that is too long."""

    def __init__(self, stream: IO[bytes], max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._data = bytearray()
        self.count = 0
        self.is_complete = False
        """Whether the end of the dump was read."""
        while (begin := _PAGE_BEGIN.search(self._data)) is None and len(self._data) < MAX_HEAD_BYTES and self._fill():
            pass
        self.head = _RECODED.sub(rb"\1", bytes(self._data[: begin.start() if begin else MAX_HEAD_BYTES]))

    @property
    def offset(self) -> int:
        """Offset of what follows the last page, in the dump."""
        return self._stream.tell() - len(self._data)

    def jump(self, start: Bookmark) -> None:
        """Continue at a bookmark."""
        ahead = start.offset - self.offset
        if ahead > len(self._data):  # else the head was read up to behind it
            self._stream = continued(self._stream, start)
        del self._data[:ahead]
        self.count, self.is_complete = 1, bool(start.state[0])

    def bookmark(self, position: int) -> Bookmark:
        """A bookmark for what follows the last page."""
        return Bookmark(position, self.offset, member_at(self._stream, self.offset), (int(self.is_complete),))

    def __iter__(self) -> Iterator[bytes]:
        while self._skip_to_page():
            self.count += 1
            page = self._page()
            if page is None:
                return
            yield page

    def _skip_to_page(self) -> bool:
        while (begin := _PAGE_BEGIN.search(self._data)) is None:
            self.is_complete = self.is_complete or _END.search(self._data) is not None
            del self._data[: max(0, len(self._data) - 2 * len(ROOT))]
            if not self._fill():
                return False
        del self._data[: begin.start()]
        return True

    def _page(self) -> bytes | None:
        """The page at the beginning of the data, up to the next one if it has no end; None if the file ends before.

        Whether it is too long depends on its length alone, not on the bytes that a read returns.
        """
        searched, removed = 1, 0
        while True:
            end = self._data.find(_PAGE_END, searched)
            follower = _PAGE_BEGIN.search(self._data, searched, end if end >= 0 else len(self._data))
            if follower or end >= 0:
                stop = follower.start() if follower else end + len(_PAGE_END)
                break
            searched = max(1, len(self._data) - len(_PAGE_END))
            if len(self._data) > self._max_bytes + READ_BYTES + len(_PAGE_END):
                removed += searched - 1
                del self._data[1:searched]
                searched = 1
            if not self._fill():
                return None
        page = TOO_LONG if removed + stop > self._max_bytes + READ_BYTES else bytes(self._data[:stop])
        del self._data[:stop]
        return page

    def _fill(self) -> bool:
        data = self._stream.read1(READ_BYTES)  # type: ignore[attr-defined]  # all bytes before damage
        self._data += data
        return bool(data)


def _parsed_head(head: bytes) -> "etree._Element | Failure":
    """Root element of the XML before the first page."""
    parser = etree.XMLPullParser(
        events=("start",), resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True,
        remove_pis=True,
    )  # fmt: skip
    root: etree._Element | None = None
    end = head.find(b"</siteinfo>") + len(b"</siteinfo>")
    try:
        parser.feed(head[: end if end >= len(b"</siteinfo>") else READ_BYTES // 2])
        parser.close()  # hands over the root of the shortest files; most heads end inside the root
        root = next((element for _, element in parser.read_events()), None)
    except etree.LxmlError as error:
        root = next((element for _, element in parser.read_events()), None)
        if root is None:
            return Failure(0, "unreadable_from_here", str(error)[:200])
    return root if root is not None else Failure(0, "unreadable_from_here", "no element at its beginning")


def _read_page(
    page: bytes, base: str, names: tuple[tuple[str, ...], frozenset[str]], max_bytes: int, options: dict[str, str]
) -> Failure | Markup | None:
    """Article as wikitext; None for a page of another namespace.

    Args:
        page: its XML.
        base: address of the wiki's articles.
        names: names of the namespaces, and these as prefixes of titles.
        max_bytes: limit of a page.
        options: of the parser.
    """
    if page == TOO_LONG:
        return Failure(0, "too_long", f"a page of more than {max_bytes:,} bytes")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True, remove_comments=True, **options
    )
    try:
        element = etree.fromstring(page, parser)
    except (etree.LxmlError, LookupError) as error:
        return Failure(0, "unreadable_page", str(error)[:200])
    title, namespace = _child(element, "title"), _child(element, "ns")
    prefix, colon, _ = title.partition(":")
    if namespace not in ("", ARTICLES) or (not namespace and colon and _prefix(prefix) in names[1]):
        return None
    if next(element.iterchildren("{*}redirect"), None) is not None:
        return Failure(0, "redirect", title)
    revision = next(element.iterchildren("{*}revision", reversed=True), element)
    model = _child(revision, "model")
    if model.lower() not in WIKITEXT:
        return Failure(0, "not_wikitext", f"content model {model} of {title}")
    record = Record(
        0,
        "",
        id=_child(element, "id") or None,
        url=base + quote(title.replace(" ", "_"), safe="/:()',") if base else None,
        date=iso_date(_child(revision, "timestamp")),
        metadata={"title": title},
    )
    text = unix_line_ends(_child(revision, "text"))
    return Markup(record, text, "wikitext", name=title, namespaces=names[0])


def _prefix(namespace: str) -> str:
    """Name of a namespace as in titles; MediaWiki ignores their case, and takes underscores for spaces."""
    return " ".join(namespace.replace("_", " ").split()).casefold()


def _root_problem(root: etree._Element) -> str:
    return (
        f"the root element is <{_name(root)}>; XML is read if it is <{ROOT}>, a dump of MediaWiki "
        "(other files: format html or plain, or leave them out of the path)"
    )


def _name(element: etree._Element) -> str:
    """Name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _shown(head: bytes) -> str:
    """The most frequent elements of a dump, without the root and those of `siteinfo`."""
    names = Counter(_ELEMENT.findall(re.sub(rb"<siteinfo>.*?</siteinfo>", b"", head, count=1, flags=re.S)))
    names.pop(ROOT.encode(), None)
    return ", ".join(f"{count:,} <{name.decode()}>" for name, count in names.most_common(3)) or "no element"


def _child(parent: etree._Element, name: str) -> str:
    """Text of the first child of this name, else of the first such element inside."""
    path = f"{{*}}{name}"
    child = next(parent.iterchildren(path), None)
    child = next(parent.iter(path), None) if child is None else child
    return (child.text or "").strip() if child is not None else ""
