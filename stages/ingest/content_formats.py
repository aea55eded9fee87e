"""Formats of files whose names do not say it, by their first bytes.

- `is_told_by_content`: whether a name leaves the format open
- `format_of_content`: format of a file
"""

import io
import re
import zlib
from pathlib import PurePosixPath
from typing import IO

from stages.ingest.config import FormatName
from stages.ingest.file_formats import COMPRESSIONS
from stages.ingest.streams.decompression import detected_compression, expanded, is_text

HEAD_BYTES = 1 << 14
_MARKUP: tuple[tuple[FormatName, re.Pattern[bytes]], ...] = (
    ("warc", re.compile(rb"WARC/\d")),
    ("wikipedia_dump", re.compile(rb"(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<mediawiki\b", re.S)),
    ("html", re.compile(rb"(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.S | re.I)),
    ("json_lines", re.compile(rb"[\x1e\s]*(?:\{\s*\"|\[\s*\{\s*\"|[\[{]\s*\Z)")),
)
_ARROW_STREAM = b"\xff\xff\xff\xff"
_OPEN_ENDING = re.compile(r"\.[^.]*[\d-][^.]*", re.ASCII)
"""Endings that number the parts of a file: `.xml-p1p41242`, `.jsonl-00000-of-00010`, `.001`."""


def is_told_by_content(name: str) -> bool:
    """Whether a name, without the ending of its compression, has no ending or one with a number.

    Other endings that no format has, such as `.bak` or `.md5`, say that the file is no source of text.
    """
    path = PurePosixPath(name.lower().split("?", 1)[0])
    path = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    return not path.suffix or _OPEN_ENDING.fullmatch(path.suffix) is not None


def format_of_content(stream: io.BufferedReader, name: str) -> FormatName | None:
    """Format of a file by its first bytes, after decompression; None if it is unknown.

    UTF-8 text without a known structure is plain text if the name has no ending at all.

    Raises:
        OSError: if it cannot be read.
    """
    compression = detected_compression(stream)
    head = _head(stream, compression)
    if not compression and head[:4] == b"PAR1":
        return "parquet"
    if not compression and head.startswith((b"ARROW1", _ARROW_STREAM)):
        return "arrow"
    begin = head.removeprefix(b"\xef\xbb\xbf")
    for name_of_format, pattern in _MARKUP:
        if pattern.match(begin.lstrip()):
            return name_of_format
    return "plain" if begin.strip() and not PurePosixPath(name).suffix and is_text(head) else None


def _head(stream: IO[bytes], compression: str | None) -> bytes:
    if compression is None:
        return stream.read(HEAD_BYTES)
    head = b""
    try:
        for chunk in expanded(stream, compression):
            head += chunk
            if len(head) >= HEAD_BYTES:
                break
    except (ValueError, zlib.error):  # reading reports the damage, with its position
        pass
    return head[:HEAD_BYTES]
