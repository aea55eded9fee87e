"""Progress of a stage: the callbacks it makes, and how they travel between processes.

- `ProgressListener`, `SilentListener`: the interface and the one that ignores everything
- `RelayedListener`, `relayed`: the worker's and the driver's end of a file that carries the callbacks
- `repeated`: the background thread that polls such files
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from infra.store.filesystem import Folder

FILE = "relayed-progress.json"
KEPT = 20
"""Newest calls that the file holds; older ones that the driver has missed no longer matter."""
POLL_SECONDS = 1.0


class ProgressListener(Protocol):
    """Callbacks for the phases of one stage; the command line draws them."""

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        """`done` of `total` units of a phase are finished; `note` is a short figure to show."""

    def logged(self, message: str) -> None:
        """A sentence for the log."""

    def measured(self, phase: str, figures: Mapping[str, float]) -> None:
        """Figures of a phase so far, by name: `tokens_per_second`, `loss`, counts of its partitions."""


class SilentListener:
    """Ignores all progress; for tests and for work without a view."""

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        """Ignore."""

    def logged(self, message: str) -> None:
        """Ignore."""

    def measured(self, phase: str, figures: Mapping[str, float]) -> None:
        """Ignore."""


class RelayedListener:
    """Writes its calls to a file in `folder`; a restarted worker appends to the calls of the one before."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._calls = _read(folder)

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        """As in `ProgressListener`."""
        self._append("advanced", phase, done, total, note)

    def logged(self, message: str) -> None:
        """As in `ProgressListener`."""
        self._append("logged", message)

    def measured(self, phase: str, figures: Mapping[str, float]) -> None:
        """As in `ProgressListener`."""
        self._append("measured", phase, dict(figures))

    def _append(self, *call: Any) -> None:
        number = self._calls[-1][0] + 1 if self._calls else 1
        self._calls = [*self._calls[1 - KEPT :], [number, *call]]
        self._folder.write(FILE, json.dumps(self._calls).encode())


@contextmanager
def relayed(folder: Folder, listener: ProgressListener) -> Iterator[None]:
    """Pass the calls of a `RelayedListener` on the same folder to `listener` while the block runs."""
    folder.remove(FILE)
    last_number = 0

    def pass_on() -> None:
        nonlocal last_number
        for number, method, *arguments in _read(folder):
            if number > last_number:
                last_number = number
                getattr(listener, method)(*arguments)

    try:
        with repeated(pass_on):
            yield
    finally:
        folder.remove(FILE)


@contextmanager
def repeated(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` every `POLL_SECONDS` on a background thread while the block runs, and once after it."""
    stop = threading.Event()

    def poll() -> None:
        while not stop.wait(POLL_SECONDS):
            action()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        action()


def _read(folder: Folder) -> list[list[Any]]:
    try:
        calls: list[list[Any]] = json.loads(folder.read(FILE))
    except FileNotFoundError:
        return []
    return calls
