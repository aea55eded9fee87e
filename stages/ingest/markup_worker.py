"""A process that extracts text from markup, one document at a time, within limits of CPU time and memory.

Started as `python -m stages.ingest.markup_worker SECONDS BYTES`. It reads pickled batches from standard input, and
writes a pickled `Record` or `Failure` per document to standard output. A signal of the kernel ends the process when a
parser exceeds the time: neither regular expressions nor parsers in C can be interrupted otherwise.
"""

import contextlib
import os
import pickle
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from typing import IO, Any

from stages.ingest.config import TextFormatName
from stages.ingest.records import Failure, Record

LENGTH = struct.Struct("<Q")
"""Header of a message: its number of bytes."""
TOO_LARGE = "too_large"
OUT_OF_MEMORY = 12
"""Exit status of the process."""

Hint = str | tuple[str, ...] | None
"""Knowledge beside the markup: the address of a page in HTML, the namespaces of a wiki."""
Task = tuple[str | bytes, TextFormatName, Hint]
"""Markup, its format, and a hint."""


def extractor(kind: TextFormatName) -> Callable[[Any, Any], Record | Failure]:
    """Function of (markup, hint) that extracts the text; imports the parser."""
    if kind == "html":
        from stages.ingest.formats import html

        return html.read
    if kind == "wikitext":
        from stages.ingest.formats import wikitext

        return lambda text, namespaces: wikitext.read(text, namespaces or ())
    if kind == "gutenberg":
        from stages.ingest.formats import gutenberg

        return lambda text, _: gutenberg.read(text)
    from stages.ingest.formats import markup

    return lambda text, _: markup.read_markdown(text) if kind == "markdown" else markup.read_rst(text)


def main(seconds: float, memory_bytes: int) -> None:
    """Answer batches until standard input ends."""
    source, target = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for the parent
    is_limited: set[TextFormatName] = set()
    while batch := _receive(source):
        for markup, kind, hint in batch:
            extract = extractor(kind)
            if kind not in is_limited:
                is_limited.add(kind)
                _limit_memory(memory_bytes)  # again, as the parser's libraries are loaded by now
            signal.setitimer(signal.ITIMER_PROF, seconds)
            result = _extracted(extract, markup, hint)
            signal.setitimer(signal.ITIMER_PROF, 0)
            send(target, result)


def _extracted(extract: Callable[[Any, Any], Record | Failure], markup: str | bytes, hint: Hint) -> Any:
    try:
        return extract(markup, hint)
    except MemoryError:
        return Failure(0, TOO_LARGE, f"the parser needs more memory for {len(markup):,} characters of markup")
    except Exception as error:  # a bug of the parser, which must not end a run over a billion pages
        return Failure(0, "unreadable_markup", f"{type(error).__name__}: {error}"[:200])


def send(target: IO[bytes], message: object) -> None:
    """Write a message."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    target.write(LENGTH.pack(len(data)))
    target.write(data)
    target.flush()


def _receive(source: IO[bytes]) -> Sequence[Task] | None:
    header = source.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    tasks: Sequence[Task] = pickle.loads(source.read(*LENGTH.unpack(header)))
    return tasks


def _limit_memory(memory_bytes: int) -> None:
    """Limit the address space to `memory_bytes` more than it has now; not possible on every system."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    try:
        main(float(sys.argv[1]), int(sys.argv[2]))
    except MemoryError:  # while a document was received, or its text sent
        os._exit(OUT_OF_MEMORY)
