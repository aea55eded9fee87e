"""The text that a job prints, as numbered chunks in the store, readable when the cluster is gone.

`runs/<run id>/logs/<fencing number>/<chunk>.txt`; chunks end at a line's end, and only the newest one still changes.

- `LogKeeper`: the job's side, which copies the file that Ray lets the driver print to
- `LogReader`: the text that was added since the last read
"""

import codecs
import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from data_schemas.public_urls import public_text
from infra.store.filesystem import Folder

CHUNK_BYTES = 64_000
KEEP_SECONDS = 2.0
READ_BYTES = 1 << 20
LINE_CHARACTERS = 1 << 20
"""Longest line that is kept back until it ends."""


def log_folder(runs: Folder, run_id: str) -> Folder:
    """Folder of all chunks of a run."""
    return runs.child(f"{run_id}/logs")


class LogKeeper:
    """Copies what this process prints to the store, from a daemon thread; an error of the store delays it.

    At most a few megabytes are in memory, whatever was printed. What is no UTF-8 is replaced.
    """

    def __init__(self, runs: Folder, run_id: str, number: int, descriptor: int = 1) -> None:
        """Copy the regular file behind a descriptor; a pipe or a terminal is left alone."""
        self._folder = log_folder(runs, run_id).child(f"{number:06d}")
        self._chunk, self._text, self._saved = 1, b"", 0
        self._rest = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._source = _reopened(descriptor)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"log-{run_id}", daemon=True)
        if self._source is not None:
            self._thread.start()

    def close(self) -> None:
        """Copy the rest, and end."""
        self._stop.set()
        if self._source is not None:
            self._thread.join(60)
            with contextlib.suppress(Exception):
                self._copy(is_last=True)

    def _run(self) -> None:
        while not self._stop.wait(KEEP_SECONDS):
            with contextlib.suppress(Exception):  # the store is out of reach; the next round has the rest
                self._copy()

    def _copy(self, is_last: bool = False) -> None:
        assert self._source is not None
        with self._lock:
            self._save()  # what a store out of reach has left
            while data := os.read(self._source, READ_BYTES):
                self._take(self._decoder.decode(data))
                self._save()
            if is_last:
                self._text += public_text(self._rest + self._decoder.decode(b"", final=True)).encode()
                self._rest = ""
                self._save()

    def _take(self, text: str) -> None:
        """Add whole lines, in which URLs are whole; progress bars end theirs with a carriage return."""
        self._rest += text
        end = max(self._rest.rfind("\n"), self._rest.rfind("\r")) + 1
        if not end and len(self._rest) > LINE_CHARACTERS:
            end = self._rest.rfind(" ") + 1 or len(self._rest)
        self._text += public_text(self._rest[:end]).encode()
        self._rest = self._rest[end:]

    def _save(self) -> None:
        while len(self._text) >= CHUNK_BYTES:
            end = self._text.rfind(b"\n", 0, CHUNK_BYTES) + 1 or self._text.find(b"\n") + 1 or len(self._text)
            self._folder.write(f"{self._chunk:06d}.txt", self._text[:end])
            self._chunk, self._text, self._saved = self._chunk + 1, self._text[end:], 0
        if len(self._text) > self._saved:
            self._folder.write(f"{self._chunk:06d}.txt", self._text)
            self._saved = len(self._text)


class LogReader:
    """Reads what was added to the log of a run, of all its jobs or from one on."""

    def __init__(self, runs: Folder, run_id: str, first: int = 0) -> None:
        """Begin with the job that took fencing number `first`."""
        self._folder = log_folder(runs, run_id)
        self._first = first
        self._positions: dict[str, tuple[str, int]] = {}

    def new_text(self) -> Iterator[str]:
        """The text that was added since the last call, by fencing number and chunk."""
        for number in self._folder.names():
            if number.isdecimal() and int(number) >= self._first:
                yield from self._new_of(number)

    def _new_of(self, number: str) -> Iterator[str]:
        folder = self._folder.child(number)
        chunk, offset = self._positions.get(number, ("", 0))
        for name in folder.names():
            if name.endswith(".txt") and name[0] != "." and name >= chunk:
                data = folder.read(name)
                self._positions[number] = (name, len(data))
                if text := data[offset if name == chunk else 0 :].decode(errors="replace"):
                    yield text


def _reopened(descriptor: int) -> int | None:
    """A descriptor of the same file with a position of its own; None for what is no regular file."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return os.open(Path(f"/proc/self/fd/{descriptor}"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
