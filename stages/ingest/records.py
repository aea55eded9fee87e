"""Results of the readers: records, and failures to read them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


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
