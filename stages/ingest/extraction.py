"""Text of documents in markup, extracted by a process that can be killed.

- `extracted`: records in their order, with the text of those in markup
- `close_worker`: ends the process, which is kept from file to file

Parsers of markup have inputs on which they run for hours or take all memory. Documents go to the process in batches, so
that they cost no more than copying their text; formats without such a parser never start it.
"""

import atexit
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import IO

from stages.ingest.markup_worker import LENGTH, OUT_OF_MEMORY, TOO_LARGE, Hint, Task, send
from stages.ingest.records import Failure, Markup, Record

BATCH_DOCUMENTS = 64
BATCH_BYTES = 1_000_000
MEMORY_BYTES = 800_000_000
"""Memory for one document, besides that of the libraries."""
TOO_SLOW = "too_slow"
_FIELDS = ("id", "source", "genre", "language", "url", "licence", "date")


def extracted(items: Iterable[Record | Failure | Markup], seconds: float) -> Iterator[Record | Failure]:
    """Records and failures in the order of the items.

    Args:
        items: results of a reader.
        seconds: CPU time for each document in markup; `too_slow` is the reason of those that need more.

    Raises:
        Exception: of the reader, after the results of the items before it.
    """
    batch: list[Record | Failure | Markup] = []
    size = 0
    try:
        for item in items:
            if not batch and not isinstance(item, Markup):
                yield item
                continue
            batch.append(item)
            size += len(item.data) if isinstance(item, Markup) else 0
            if len(batch) >= BATCH_DOCUMENTS or size >= BATCH_BYTES:
                yield from _finished(batch, seconds)
                batch, size = [], 0
    except Exception:
        yield from _finished(batch, seconds)
        raise
    yield from _finished(batch, seconds)


def _finished(batch: Sequence[Record | Failure | Markup], seconds: float) -> Iterator[Record | Failure]:
    markups = [item for item in batch if isinstance(item, Markup)]
    tasks = [(item.data, item.kind, _hint(item)) for item in markups]
    results = _worker(seconds).results(tasks) if tasks else iter(())
    for item in batch:
        yield _merged(item, next(results)) if isinstance(item, Markup) else item


def _hint(item: Markup) -> Hint:
    return item.namespaces if item.kind == "wikitext" else item.record.url


def _merged(item: Markup, result: Record | Failure) -> Record | Failure:
    """Result with the fields of the file, which take precedence over those in the text."""
    if isinstance(result, Failure):
        return replace(result, position=item.record.position, detail=result.detail or item.name)
    fields = {name: value for name in _FIELDS if (value := getattr(item.record, name)) is not None}
    fields.setdefault("date", result.date or item.fallback_date)
    metadata = {**result.metadata, **item.record.metadata}
    return replace(result, position=item.record.position, metadata=metadata, **fields)


class _Worker:
    """The process; started for the first document, and again after it was killed."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.owner = os.getpid()
        self.process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def results(self, tasks: Sequence[Task]) -> Iterator[Record | Failure]:
        """Results of the tasks, in their order."""
        with self._lock:
            results: list[Record | Failure] = []
            while len(results) < len(tasks):
                results += self._answers(tasks[len(results) :])
        return iter(results)

    def close(self) -> None:
        """End the process; only in the process that started it."""
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.communicate()
        self.process = None

    def _answers(self, tasks: Sequence[Task]) -> Iterator[Record | Failure]:
        """Results up to the first task that kills the process, with a failure for it."""
        if self.process is None:
            self.process = self._started()
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            send(process.stdin, tasks)
        except BrokenPipeError:  # killed by somebody else since the last batch
            self.close()
            return
        for markup, _, _ in tasks:
            answer = _received(process.stdout)
            if answer is None:
                code = process.wait()
                self.close()
                yield self._failure(code, len(markup))
                return
            yield answer

    def _failure(self, code: int, size: int) -> Failure:
        if code == -signal.SIGPROF:
            return Failure(0, TOO_SLOW, f"more than {self.seconds:g} s for {size:,} characters of markup")
        if code in (OUT_OF_MEMORY, -signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV):  # of memory, or of stack
            return Failure(0, TOO_LARGE, f"the parser ended with status {code} at {size:,} characters of markup")
        return Failure(0, "unreadable_markup", f"the parser ended with status {code} at {size:,} characters of markup")

    def _started(self) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        # -P: a folder `stages` where the command was started is not this package.
        command = [sys.executable, "-P", "-m", "stages.ingest.markup_worker", str(self.seconds), str(MEMORY_BYTES)]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )


def _received(source: IO[bytes]) -> Record | Failure | None:
    header = source.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(header)
    data = source.read(size)
    if len(data) < size:
        return None
    result: Record | Failure = pickle.loads(data)
    return result


_workers: dict[float, _Worker] = {}


def _worker(seconds: float) -> _Worker:
    """The process of this process; a forked one starts its own."""
    worker = _workers.get(seconds)
    if worker is None or worker.owner != os.getpid():
        close_worker()
        worker = _workers[seconds] = _Worker(seconds)
    return worker


def process_ids() -> list[int]:
    """Ids of the processes that this process has started and that have not ended."""
    return [worker.process.pid for worker in _workers.values() if worker.process is not None]


def close_worker() -> None:
    """End the process, if there is one."""
    for worker in _workers.values():
        worker.close()
    _workers.clear()


atexit.register(close_worker)
