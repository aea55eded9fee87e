"""Bookmarks: offsets of a file from which reading can continue, so that a resumed partition parses little again.

- `Bookmark`: such an offset, and the position of the first record from there
- `Bookmarks`: those of the file that is being read, which its reader sets
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

SPACING_BYTES = 1 << 20
"""Decompressed bytes between two bookmarks."""


class Member(NamedTuple):
    """Beginning of a gzip member, bzip2 or xz stream, or zstandard frame."""

    offset: int = 0
    """In the compressed file."""
    position: int = 0
    """In the decompressed content."""


FIRST_MEMBER = Member()


@dataclass(frozen=True)
class Bookmark:
    """An offset from which the remaining records of a file can be read."""

    position: int
    """Index of the first record from there."""
    offset: int
    """In the content after decompression, from the beginning of the file (or of what follows damage)."""
    member: Member = FIRST_MEMBER
    """The last one that begins at or before the offset."""
    state: tuple[int, ...] = ()
    """Further state of the reader."""

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Bookmark":
        """The bookmark of `as_json`."""
        return cls(values["position"], values["offset"], Member(*values["member"]), tuple(values["state"]))


class Bookmarks:
    """Bookmarks of one file: the one to start at, and those that were set since."""

    def __init__(self, first: int = 0, start: Bookmark | None = None) -> None:
        """Begin a file.

        Args:
            first: position of the first record to yield; those before it were read by an earlier attempt.
            start: bookmark at or before it; None for the beginning of the file.
        """
        self.first = first
        self.start = start
        self._last_offset = start.offset if start else 0
        self._set: deque[tuple[Bookmark, dict[str, int]]] = deque()
        self._begin: tuple[Bookmark | None, dict[str, int]] = (start, {})
        self._passed_over: Counter[str] = Counter()

    @property
    def passed_over(self) -> Counter[str]:
        """Counts of records that are passed over, in which the reader counts on."""
        return self._passed_over

    @passed_over.setter
    def passed_over(self, counts: Counter[str]) -> None:
        self._passed_over = counts
        self._begin = (self.start, dict(counts))

    def is_due(self, offset: int) -> bool:
        """Whether this far from the last bookmark the next one should be set."""
        return not 0 <= offset - self._last_offset < SPACING_BYTES

    def add(self, bookmark: Bookmark) -> None:
        """Set a bookmark; they come in the order of their positions."""
        self._last_offset = bookmark.offset
        self._set.append((bookmark, dict(self._passed_over)))

    def before(self, position: int) -> Bookmark | None:
        """The last bookmark at or before a record, and forget those before it; None for the beginning of the file."""
        while self._set and self._set[0][0].position <= position:
            self._begin = self._set.popleft()
        return self._begin[0]

    def passed_over_before(self, position: int) -> dict[str, int]:
        """Counts of records passed over at that bookmark."""
        self.before(position)
        return self._begin[1]
