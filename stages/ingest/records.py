"""Results of the readers: records, and failures to read them.

- `Record`, `Failure`: a document of a file, or a part of it that yields none
- `Markup`: a document whose text is still in markup
- `unix_line_ends`: text with LF alone at the ends of lines, which all patterns of the readers expect
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stages.ingest.config import TextFormatName


@dataclass(frozen=True)
class Record:
    """A document of a file: its text and the metadata in the file."""

    position: int
    """Index of the record in its file."""
    text: str
    id: str | None = None
    """The file's own id; stored in the metadata."""
    source: str | None = None
    genre: str | None = None
    language: str | None = None
    """ISO 639-1."""
    url: str | None = None
    licence: str | None = None
    date: str | None = None
    """ISO 8601."""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A record, or the remainder of a file, that yields no document."""

    position: int
    reason: str
    """A short constant name, such as `not_json` or `redirect`; failures are counted by it."""
    detail: str | None = None
    """The error message, stored in the rejects table."""
    lost_bytes: int = 0
    """Bytes of the file whose records were not read; the size of the file if it ends early."""


@dataclass(frozen=True)
class Markup:
    """A document whose text is still in markup."""

    record: Record
    """Its position and the metadata in the file; the text is empty."""
    data: str | bytes
    kind: TextFormatName
    name: str | None = None
    """Detail of its failures that have none."""
    fallback_date: str | None = None
    """Date if neither the record nor the markup has one."""
    namespaces: tuple[str, ...] = ()
    """Names that a wiki's dump lists for its namespaces, but for that of articles."""


def unix_line_ends(text: str) -> str:
    """Text with LF in place of CR LF and CR; applied wherever text is decoded.

    U+2028, U+0085 and form feeds separate lines for `str.splitlines` only; they are content.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
