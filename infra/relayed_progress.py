"""Progress of another process, through a file: what a worker tells is heard where the run is driven.

- `RelayedListener`: the worker's; `relayed`: the driver's
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infra.progress import ProgressListener
from infra.store.filesystem import Folder

FILE = "relayed-progress.json"
KEPT = 20
"""Newest calls that the file holds; what the driver misses among older ones is of no more interest."""
LOOK_EVERY_SECONDS = 1.0


class RelayedListener:
    """A `ProgressListener` that writes down what it is told; one that starts again goes on behind the other."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._calls = _read(folder)

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        """As in `ProgressListener`."""
        self._tell("advanced", phase, done, total, note)

    def logged(self, message: str) -> None:
        """As in `ProgressListener`."""
        self._tell("logged", message)

    def _tell(self, *call: Any) -> None:
        number = self._calls[-1][0] + 1 if self._calls else 1
        self._calls = [*self._calls[1 - KEPT :], [number, *call]]
        self._folder.write(FILE, json.dumps(self._calls).encode())


@contextmanager
def relayed(folder: Folder, listener: ProgressListener) -> Iterator[None]:
    """While the block runs, `listener` is told what a `RelayedListener` on the same folder is."""
    folder.remove(FILE)
    told, stop = 0, threading.Event()

    def look() -> None:
        nonlocal told
        for number, method, *arguments in _read(folder):
            if number > told:
                told = number
                getattr(listener, method)(*arguments)

    def follow() -> None:
        while not stop.wait(LOOK_EVERY_SECONDS):
            look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look()
        folder.remove(FILE)


def _read(folder: Folder) -> list[list[Any]]:
    try:
        calls: list[list[Any]] = json.loads(folder.read(FILE))
    except FileNotFoundError:
        return []
    return calls
