"""Reads a page as a browser would: text, attributes, and whether every element is closed."""

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """A parsed page; fails where an element is closed out of order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        """All text, style sheet left out, white space as one blank."""
        return re.sub(r"\s+", " ", "".join(self._text))

    def handle_starttag(self, tag, attrs):
        self._start(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._start(tag, attrs)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if self._open[-1:] != ["style"]:
            self._text.append(data + " " if self._open[-1:] != ["pre"] else data)

    def _start(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "action", "srcset", "xlink:href", "data", "poster"):
                self.references.append(value)
            assert not name.startswith("on"), name

    def assert_self_contained(self) -> None:
        """Nothing is fetched, nothing is executed."""
        assert all(value.startswith("#") for value in self.references), self.references
        assert {value[1:] for value in self.references} <= set(self.ids)
        assert len(set(self.ids)) == len(self.ids)
        assert not {"script", "link", "img", "iframe", "object"} & set(self.tags)
        assert not re.search(r"@import|url\((?!#)", self.html)
        assert "DejaVu" not in self.html, "charts take the page's font"
        assert not re.search(r"#0[0-9]0[0-9]0[0-9]\b", self.html), "a sentinel color was left"
