"""A filesystem that counts the requests that an object store would receive."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from fsspec.implementations.memory import MemoryFileSystem

COUNTED = ("ls", "find", "info", "exists", "isfile", "cat_file", "_open", "pipe_file", "rm_file")


@contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """Count the calls of `memory://` stores by method; one that is made within another is not counted."""
    requests: Counter[str] = Counter()
    depth = [0]

    def counting(name: str, call: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            requests[name] += depth[0] == 0
            depth[0] += 1
            try:
                return call(*args, **kwargs)
            finally:
                depth[0] -= 1

        return counted

    methods = {name: counting(name, getattr(MemoryFileSystem, name)) for name in COUNTED}
    with mock.patch.multiple(MemoryFileSystem, **methods):
        yield requests
