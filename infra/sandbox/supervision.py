"""The loop that reads the pipes of boxes and kills boxes that exceed a limit."""

import selectors
import time

from infra.sandbox.box import Box, Stream

WATCH_SECONDS = 0.05
START_SECONDS = 120.0
"""Time to build the boxes on a busy machine; the wall-clock limit of a program starts after it."""
DRAIN_SECONDS = 5.0


def supervise(main: Box, *others: Box) -> None:
    """Read the pipes of all boxes until `main` has ended, then end the others and read their remaining output."""
    boxes = (main, *others)
    with selectors.DefaultSelector() as selector:
        for stream in (stream for box in boxes for stream in box.streams):
            selector.register(stream.reader, selectors.EVENT_READ, stream)
        selector.register(main.ended, selectors.EVENT_READ)
        start, started = time.monotonic(), False
        while not _read_ready(selector):
            if not started and all(box.has_started for box in boxes):
                start, started = time.monotonic(), True
            for box in boxes:
                box.watch()
                if time.monotonic() - start > (box.limits.wall_seconds if started else START_SECONDS):
                    box.kill("time")
        selector.unregister(main.ended)
        main.process.wait()
        for box in others:
            box.end()
        deadline = time.monotonic() + DRAIN_SECONDS
        while selector.get_map() and time.monotonic() < deadline:
            _read_ready(selector)


def _read_ready(selector: selectors.BaseSelector) -> bool:
    """Wait up to `WATCH_SECONDS` for output and read it; True when the main box has ended."""
    ended = False
    for key, _ in selector.select(WATCH_SECONDS):
        if not isinstance(key.data, Stream):
            ended = True
        elif not key.data.read():
            selector.unregister(key.fileobj)
    return ended
