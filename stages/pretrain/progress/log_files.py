"""Files of the training log: records as JSON lines that are only appended, so that a record costs the same in any log.

Each start of the workers writes a segment, the files `log/<fencing number>-<start>-<token>-<part>.jsonl`. Part 0 holds
the records that the start keeps of the segment before; it is written as a whole, and with it the segment exists. Only
the last segment, in the order of names, counts. An owner of the run that was superseded has a lower fencing number:
whatever it still appends is not read.

On a local disk all new records are appended to part 1. Other filesystems cannot append: there the newest part is
rewritten with each record, until it has `PART_RECORDS`.

- `RecordWriter`: a segment that is written; `RecordReader`: the last segment, read as it grows
"""

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from infra.store.claims import FencedFolder
from infra.store.filesystem import Folder

LOG = "log"
PART_RECORDS = 256
"""Records of a part where files cannot be appended to: up to 0.1 MB."""
READ_ATTEMPTS = 5
_NAME = re.compile(r"(\d{6}-\d{6}-[0-9a-f]{8})-(\d{6})\.jsonl")

Record = dict[str, Any]
"""{kind: content}, such as {"row": {"step": 10, ...}}."""


class RecordWriter:
    """A new segment of the log."""

    def __init__(self, work: Folder, kept: Sequence[Record]) -> None:
        """Begin a segment that replaces all before it.

        Args:
            work: the run's work folder, fenced by the claim of the run's owner.
            kept: the records that the log has now.
        """
        self._work = work
        earlier = _segments(work)
        claim = work.claim.number if isinstance(work, FencedFolder) else 0
        start = 1 + max((int(name.split("-")[1]) for name in earlier), default=0)
        self._segment, self._part = f"{claim:06d}-{start:06d}-{uuid.uuid4().hex[:8]}", 1
        self._lines: list[bytes] = []
        work.write(_path(self._segment, 0), b"".join(map(_line, kept)))
        for name in sorted(earlier):
            for part in earlier[name] if name < self._segment else ():
                work.remove(_path(name, part))

    def append(self, record: Record) -> None:
        """Add a record.

        Raises:
            FencedError: if the run was taken over.
        """
        if self._work.is_local:
            self._work.append(_path(self._segment, 1), _line(record))
            return
        if len(self._lines) == PART_RECORDS:
            self._part, self._lines = self._part + 1, []
        self._lines.append(_line(record))
        self._work.write(_path(self._segment, self._part), b"".join(self._lines))

    def sync(self) -> None:
        """Make sure that all records survive a power failure."""
        if self._work.is_local:
            self._work.append(_path(self._segment, 1), b"", sync=True)


@dataclass
class RecordReader:
    """Reads the last segment; each call of `read` continues where the one before ended."""

    work: Folder
    damaged: int = 0
    """Lines of the segment that are no records, without a last line that is being written."""
    _segment: str = ""
    _part: int = 0
    _offset: int = 0

    def read(self) -> tuple[bool, list[Record]]:
        """Whether a new segment began, whose records replace all earlier ones, and the records since the last call."""
        for _ in range(READ_ATTEMPTS):
            parts = _segments(self.work)
            segment = max((name for name, numbers in parts.items() if 0 in numbers), default="")
            is_new = segment != self._segment
            if is_new:
                self._segment, self._part, self._offset, self.damaged = segment, 0, 0, 0
            try:
                return is_new, list(self._records(sorted(parts.get(segment, ()))))
            except FileNotFoundError:  # a start of the workers has just replaced the segment
                self._segment = ""
        return False, []

    def _records(self, parts: Sequence[int]) -> Iterator[Record]:
        for part in parts:
            if part < self._part:
                continue
            if part > self._part:
                self._part, self._offset = part, 0
            data = self._data_after_offset()
            whole, newline, _ = data.rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            if newline:
                yield from self._parsed(whole.split(b"\n"))

    def _parsed(self, lines: list[bytes]) -> Iterator[Record]:
        try:
            values = json.loads(b"[" + b",".join(lines) + b"]")  # twice as fast as line by line
        except ValueError:
            values = map(_value, lines)
        for value in values:
            if isinstance(value, dict) and len(value) == 1:
                yield value
            else:
                self.damaged += 1

    def _data_after_offset(self) -> bytes:
        path = _path(self._segment, self._part)
        if not self.work.is_local:
            return self.work.read(path)[self._offset :]  # in one request: the file may be replaced between two
        with self.work.open(path) as file:
            file.seek(self._offset)
            return file.read()


def _segments(work: Folder) -> dict[str, list[int]]:
    """Parts of each segment, also of those whose part 0 was never written."""
    segments: dict[str, list[int]] = {}
    for name in work.names(LOG):
        if match := _NAME.fullmatch(name):
            segments.setdefault(match[1], []).append(int(match[2]))
    return segments


def _path(segment: str, part: int) -> str:
    return f"{LOG}/{segment}-{part:06d}.jsonl"


def _line(record: Record) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _value(line: bytes) -> Any:
    with suppress(ValueError):
        return json.loads(line)
