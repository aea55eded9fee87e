"""Many calls with a limited number of them in flight."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

POLL_SECONDS = 1.0
"""Longest wait for a call at a time: a timeout that is raised in a thread takes effect between two waits."""


def run_in_flight(
    count: int, start: Callable[[int], "Future[Any]"], limit: Callable[[], int]
) -> Iterator[tuple[int, "Future[Any]"]]:
    """Start calls 0 to `count` - 1 in order; yields numbers and futures as they end.

    The cost of a call does not depend on the number of calls in flight.

    Args:
        count: number of calls.
        start: starts one.
        limit: calls to have in flight; asked again whenever one ends, and every `POLL_SECONDS`.
    """
    ended: SimpleQueue[tuple[int, Future[Any]]] = SimpleQueue()
    started = finished = 0
    while finished < count:
        room = limit() - (started - finished)
        for number in range(started, min(count, started + room)):
            start(number).add_done_callback(lambda future, number=number: ended.put((number, future)))  # type: ignore[misc]
            started += 1
        try:
            batch = [ended.get(timeout=POLL_SECONDS)]
        except Empty:
            continue
        while not ended.empty():
            batch.append(ended.get())
        finished += len(batch)
        yield from batch
