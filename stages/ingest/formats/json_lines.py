"""JSON lines, or a JSON array of objects; read object by object, never the whole file."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO

from stages.ingest.byte_streams import as_utf8, capped_lines
from stages.ingest.config import SourceConfig
from stages.ingest.record_fields import record_of
from stages.ingest.records import Failure, Record

CHUNK_BYTES = 1 << 18
_BEFORE_ELEMENT = re.compile(r"[ \t\r\n]*[\[,][ \t\r\n]*(?=[^ \t\r\n\]])")
_AFTER_ELEMENT = re.compile(r"[ \t\r\n]*[,\]]")
_ARRAY_END = re.compile(r"[ \t\r\n]*(\[[ \t\r\n]*)?\][ \t\r\n]*")
_DECODER = json.JSONDecoder()


def read(stream: IO[bytes], source: SourceConfig, max_bytes: int) -> Iterator[Record | Failure | None]:
    """A record per line; a damaged line does not affect the others."""
    for position, line in capped_lines(as_utf8(stream), max_bytes):
        if line is None:
            yield Failure(position, "too_long", f"a line of more than {max_bytes:,} bytes")
        elif not line.isspace():
            yield _from_line(line, position, source)


def read_array_or_lines(stream: IO[bytes], source: SourceConfig, max_bytes: int) -> Iterator[Record | Failure | None]:
    """Elements of the array if the file begins with `[`, else JSON lines.

    Raises:
        ValueError: if the array is damaged, as the beginning of the next element is unknown.
    """
    stream = as_utf8(stream)
    if stream.peek(64)[:64].lstrip()[:1] != b"[":  # type: ignore[attr-defined]
        yield from read(stream, source, max_bytes)
        return
    for position, value in enumerate(_elements(stream, max_bytes)):
        yield _from_value(value, position, source)


def _from_line(line: bytes, position: int, source: SourceConfig) -> Record | Failure | None:
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Failure(position, "not_utf8", f"{error.reason} at byte {error.start} of the line")
    except ValueError as error:
        return Failure(position, "not_json", str(error))
    except RecursionError:
        return Failure(position, "not_json", "nested too deeply")
    return _from_value(value, position, source)


def _from_value(value: object, position: int, source: SourceConfig) -> Record | Failure | None:
    if not isinstance(value, dict):
        return Failure(position, "not_an_object", f"a JSON {type(value).__name__}")
    return record_of(value, position, source)


def _elements(stream: IO[bytes], max_bytes: int) -> Iterator[object]:
    """Elements of an array; chunks double in size until an element is complete, so that the work is linear."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    text, position, chunk_bytes, is_end = "", 0, CHUNK_BYTES, False
    while True:
        element = _element(text, position)
        if element is not None:
            position, value = element
            chunk_bytes = CHUNK_BYTES
            yield value
            continue
        if is_end:
            break
        if len(text) - position > max_bytes:
            raise ValueError(f"damaged JSON, or an element of more than {max_bytes:,} bytes")
        data = stream.read(chunk_bytes)
        is_end = not data
        text, position, chunk_bytes = text[position:] + decoder.decode(data, final=is_end), 0, 2 * chunk_bytes
    if not _ARRAY_END.fullmatch(text, position):
        raise ValueError(f"damaged JSON, or cut off, after {text[position : position + 40]!r}")


def _element(text: str, position: int) -> tuple[int, object] | None:
    """End and value of the element after the next bracket or comma; None if the text does not contain all of it."""
    before = _BEFORE_ELEMENT.match(text, position)
    if before is None:
        return None
    try:
        value, end = _DECODER.raw_decode(text, before.end())
    except (ValueError, RecursionError):
        return None
    return (end, value) if _AFTER_ELEMENT.match(text, end) else None
