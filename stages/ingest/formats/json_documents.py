"""JSON values that span lines: arrays, objects, and several of them one after the other.

- `read`: their records, in bounded memory
- `spans_lines`: whether a file begins with such a value
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from stages.ingest.config import SourceConfig
from stages.ingest.formats.json_values import DECODER, record, records_in
from stages.ingest.records import Failure, Record

CHUNK_BYTES = 1 << 18
MAX_INDENT = 64
INCOMPLETE_CHARACTERS = 16
"""An error this near the end of the text may be that of a literal or an escape that continues."""
_SPACE = re.compile(r"[ \t\r\n]*")
_BETWEEN = re.compile("[ \t\r\n,\x1e\ufeff]*")
"""Separators of values: also the record separator of RFC 7464, and the byte order marks of joined files."""
_NEXT_VALUE = re.compile(r"\n[\[{]")


def spans_lines(head: bytes) -> bool:
    """Whether the first value of a file does not end in its first line; a first line that is damaged does.

    Args:
        head: the beginning of the file.
    """
    head = head.lstrip()
    if head[:1] not in (b"[", b"{"):
        return False
    first, newline, behind = head.partition(b"\n")
    first = first.rstrip()
    try:
        DECODER.decode(first.decode())
        return False
    except (ValueError, RecursionError):
        pass
    if not newline:
        return first.startswith(b"[")
    is_continued = behind.startswith((b" ", b"\t", b'"', b"}", b"]", b"\r\n", b"\n"))
    return first.endswith((b"[", b"{")) or (first.startswith(b"[") and first.endswith(b",")) or is_continued


def read(stream: IO[bytes], source: SourceConfig, max_bytes: int) -> Iterator[Record | Failure | None]:
    """Records of all values; a damaged one is a failure, and reading continues at the next line that begins a value.

    Raises:
        ValueError: if an array is damaged, as the beginning of its next element is unknown.
    """
    for position, value in enumerate(_values(_Text(stream, max_bytes), source)):
        yield value.failure(position) if isinstance(value, _Damage) else record(value, position, source)


class _TooLarge(ValueError):
    pass


@dataclass
class _Damage:
    reason: str
    detail: str

    def failure(self, position: int) -> Failure:
        return Failure(position, self.reason, self.detail)


@dataclass
class _Text:
    """A window of a file; chunks double in size until a value is complete, so that the work is linear."""

    stream: IO[bytes]
    max_bytes: int
    text: str = ""
    position: int = 0
    is_end: bool = False
    chunk_bytes: int = CHUNK_BYTES
    decoder: Any = field(default_factory=codecs.getincrementaldecoder("utf-8"))

    def read_more(self) -> bool:
        """Read another chunk; False at the end of the file."""
        if self.is_end:
            return False
        data = self.stream.read(self.chunk_bytes)
        self.is_end = not data
        self.text = self.text[self.position :] + self.decoder.decode(data, final=self.is_end)
        self.position = 0
        self.chunk_bytes *= 2
        return True

    def next_character(self, ignored: re.Pattern[str] = _SPACE) -> str:
        """The next character behind `ignored` ones, which is not taken; empty at the end of the file."""
        while True:
            match = ignored.match(self.text, self.position)
            assert match
            self.position = match.end()
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.read_more():
                return ""

    def take(self, character: str) -> None:
        """Take the next character.

        Raises:
            ValueError: if it is another one.
        """
        if self.next_character() != character:
            raise ValueError(f"damaged JSON, or cut off: no {character!r} at {self.following()!r}")
        self.position += 1

    def value(self) -> Any:
        """The value at the position.

        Raises:
            ValueError: if it is damaged or cut off, or has more than `max_bytes` (`_TooLarge`).
        """
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.position)
                if end < len(self.text) or not self.read_more():  # a number may continue
                    self.chunk_bytes = CHUNK_BYTES
                    self.position = end
                    return value
                continue
            except RecursionError:
                raise ValueError("nested too deeply") from None
            except ValueError as error:
                if not self._may_continue(error) or self.is_end:
                    raise ValueError(f"{error} at {self.following()!r}") from None
                problem = str(error)
            if len(self.text) - self.position > self.max_bytes:
                raise _TooLarge(f"a value of more than {self.max_bytes:,} bytes ({problem})")
            self.read_more()

    def _may_continue(self, error: ValueError) -> bool:
        near_end = len(self.text) - INCOMPLETE_CHARACTERS
        return str(error).startswith("Unterminated string") or getattr(error, "pos", 0) >= near_end

    def following(self) -> str:
        """The next characters, for messages."""
        return self.text[self.position : self.position + 40]

    def line_begin(self) -> re.Pattern[str] | None:
        """Pattern of lines that begin as the value at the position does; None if it does not begin a line."""
        line = self.text.rfind("\n", 0, self.position)
        begin = self.text[line : self.position + 1]
        return re.compile(re.escape(begin)) if line >= 0 and re.fullmatch(r"\n[ \t]*[,{]?[ \t]*\{", begin) else None

    def skip_damage(self, begin: re.Pattern[str] = _NEXT_VALUE) -> bool:
        """Go to the next line that begins a value; False if there is none."""
        self.position += 1
        while True:
            match = begin.search(self.text, self.position)
            if match:
                self.position = match.end() - 1
                return True
            self.position = max(self.position, len(self.text) - MAX_INDENT)
            self.chunk_bytes = CHUNK_BYTES
            if not self.read_more():
                return False


def _values(text: _Text, source: SourceConfig) -> Iterator[Any]:
    while character := text.next_character(_BETWEEN):
        if character == "[":
            yield from _elements(text)
            continue
        try:
            value = text.value()
        except ValueError as error:
            if character != "{":
                raise
            if isinstance(error, _TooLarge):
                yield from _elements_of_lists(text)
                continue
            yield _Damage("not_json", str(error))
            if not text.skip_damage():
                return
            continue
        yield from records_in(value, source)


def _elements(text: _Text) -> Iterator[Any]:
    """Elements of the array at the position; after a damaged one, reading continues at the next line that begins as the
    first element does.

    Raises:
        ValueError: if it is damaged and no line begins so, or an element is too large.
    """
    text.take("[")
    text.next_character()
    begin = text.line_begin()
    while text.next_character() != "]":
        try:
            yield text.value()
            if text.next_character() != "]":
                text.take(",")
                if text.next_character() == "]":
                    raise ValueError("damaged JSON: a comma before ]")
        except _TooLarge:
            raise
        except ValueError as error:
            if begin is None or not text.skip_damage(begin):
                raise
            yield _Damage("not_json", str(error))
    text.take("]")


def _elements_of_lists(text: _Text) -> Iterator[Any]:
    """Objects in the lists of an object that is too large to be a record; other values are skipped.

    Raises:
        ValueError: if it is damaged, or a value in it too large.
    """
    text.take("{")
    while text.next_character() != "}":
        text.value()
        text.take(":")
        if text.next_character() == "[":
            yield from (element for element in _elements(text) if isinstance(element, dict))
        else:
            text.value()
        if text.next_character() != "}":
            text.take(",")
    text.take("}")
