"""Delimiters and quoting of a CSV or TSV file, as far as the file itself shows it.

- `file_dialect`: settings for the csv module
"""

import csv
import re
from collections.abc import Mapping
from typing import IO, Any

from stages.ingest.config import SourceConfig

HEAD_BYTES = 1 << 12
DELIMITERS = (",", ";", "\t", "|")
"""Delimiters of CSV and TSV besides the usual one."""
_SEPARATOR_LINE = re.compile(rb"\"?sep=([^\r\n\"])\"?,*\r?\n", re.I)


def file_dialect(stream: IO[bytes], source: SourceConfig, delimiter: str, quoting: bool) -> Mapping[str, Any]:
    """Settings of a file for `csv.reader`: a delimiter that differs from the usual one, and whether a space follows it.

    Args:
        stream: the file, of which no row was read.
        source: its source; a configured delimiter is kept.
        delimiter: the usual one of the format.
        quoting: whether quotes enclose fields.
    """
    if source.delimiter is None:
        delimiter = _shown_delimiter(stream, delimiter, source)
    header = stream.peek(HEAD_BYTES)[:HEAD_BYTES].split(b"\n", 1)[0].decode("utf-8", "replace")  # type: ignore[attr-defined]
    return {
        "delimiter": delimiter, "quoting": csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
        "skipinitialspace": source.header and 0 < header.count(delimiter) == header.count(f"{delimiter} "),
    }  # fmt: skip


def _shown_delimiter(stream: IO[bytes], default: str, source: SourceConfig) -> str:
    """Delimiter in Excel's line `sep=;`, which is taken from the stream, or that of a header that has the field of the
    text, as Excel writes it if the comma is decimal."""
    head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]  # type: ignore[attr-defined]
    if match := _SEPARATOR_LINE.match(head):
        stream.read(match.end())
        return str(match[1].decode("latin-1"))
    first = head.lstrip(b"\r\n").split(b"\n", 1)[0].decode("utf-8", "replace")
    candidates = (default, *DELIMITERS) if source.header else ()
    names = (delimiter for delimiter in candidates if source.fields.text in _names(first, delimiter))
    return next(names, default)


def _names(line: str, delimiter: str) -> list[str]:
    return [name.strip().strip('"').strip() for name in line.split(delimiter)]
