"""What every reader of ingest gives: documents as their format tells them, and what could not be read."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Record:
    """One document of a file: its text and whatever the file says about it."""

    position: int
    """Number of the record in its file, from 0."""
    text: str
    id: str | None = None
    """The file's own id; goes to the metadata."""
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
    """A record, or the rest of a file, that gives no document."""

    position: int
    reason: str
    """A short name, such as `not_json` or `redirect`: counted, so never with varying parts."""
    detail: str | None = None
    """The error, for the reader of the rejects table."""
