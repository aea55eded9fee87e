"""Ranges of large files on an object store, read by those who need them, in bounded memory and disk.

If all files fit into the cache folder, blocks that were read are kept there, once for all processes of a host; else
each range is a request. The folder belongs to one boot of one host: data that was not yet on the disk when the machine
failed is not taken for data.

- `RangeReader`: reads many ranges at once
- `cache_limit_bytes`, `cache_folder`: where and how much
"""

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from data_schemas import user_cache
from data_schemas.errors import ConfigError
from infra.processes import boot_id
from infra.store.filesystem import REQUESTS_AT_ONCE, Folder
from infra.store.records import report_once

BLOCK_BYTES = 2**17
LONGEST_READ_BLOCKS = 64
"""Blocks of one request, if many in sequence are missing."""
LIMIT_VARIABLE = "HEADRACE_CACHE_BYTES"
LIMIT_BYTES = 32 * 10**9
FREE_SHARE = 0.1
"""Share of the disk that stays free."""


class Range(NamedTuple):
    """Bytes [start, stop) of a file."""

    path: str
    start: int
    stop: int


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/headrace/shards`, by default in ~/.cache.

    Raises:
        FileNotFoundError: if there is no home.
    """
    return user_cache.cache_folder("shards")


def cache_limit_bytes() -> int:
    """Most bytes of the cache folder: `HEADRACE_CACHE_BYTES`, by default 32 GB; 0 keeps nothing.

    Raises:
        ConfigError: if the variable is no number.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        return max(0, int(float(text))) if text else LIMIT_BYTES
    except (ValueError, OverflowError):
        raise ConfigError(f"{LIMIT_VARIABLE} is {text!r}; give a number of bytes, such as 2e10, or 0") from None


class RangeReader:
    """Reads ranges of some files of a folder; safe to use from several threads and processes."""

    def __init__(self, folder: Folder, name: str, sizes: Mapping[str, int]) -> None:
        """Open the cache if the files fit into it.

        Args:
            folder: folder of the files.
            name: identifies their content, such as a digest; processes with the same name share the cached blocks.
            sizes: path -> bytes of each file.
        """
        self._folder, self._sizes = folder, dict(sizes)
        layout = hashlib.sha256(json.dumps([name, list(self._sizes.items())]).encode()).hexdigest()[:32]
        self._cache = None if folder.is_in_process else _opened_cache(layout, self._sizes)

    @property
    def is_cached(self) -> bool:
        """Whether blocks are kept on the local disk."""
        return self._cache is not None

    def read(self, ranges: Sequence[Range]) -> list[bytes]:
        """Content of each range.

        Raises:
            FileNotFoundError: if a file is not there.
        """
        cache = self._cache
        if cache is not None:
            try:
                self._fetch(cache, ranges)
                return [cache.read(wanted) for wanted in ranges]
            except FileNotFoundError:  # of the store: what the cache has open cannot disappear
                raise
            except OSError as error:  # of the local disk: the store's have other types
                report_once(f"shards are read without a local copy: {cache_folder()}: {error}")
                self._cache = None
        return self._requested(ranges)

    def _requested(self, ranges: Sequence[Range]) -> list[bytes]:
        if len(ranges) < 2 or self._folder.is_in_process:
            return [self._folder.read_range(*wanted) for wanted in ranges]
        with ThreadPoolExecutor(min(REQUESTS_AT_ONCE, len(ranges))) as pool:
            return list(pool.map(lambda wanted: self._folder.read_range(*wanted), ranges))

    def _fetch(self, cache: "_Cache", ranges: Sequence[Range]) -> None:
        missing = [
            Range(path, first * BLOCK_BYTES, min((last + 1) * BLOCK_BYTES, self._sizes[path]))
            for path, first, last in cache.missing(ranges)
        ]
        for start in range(0, len(missing), REQUESTS_AT_ONCE):
            some = missing[start : start + REQUESTS_AT_ONCE]
            for wanted, data in zip(some, self._requested(some), strict=True):
                assert len(data) == wanted.stop - wanted.start, wanted
                cache.write(wanted, data)


class _Cache:
    """A sparse file with the blocks of all files, and a file with a byte for each block: 1 once it is there."""

    def __init__(self, folder: Path, sizes: Mapping[str, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        counts = [-(-size // BLOCK_BYTES) for size in sizes.values()]
        self._first: dict[str, int] = {}
        blocks = 0
        for path, count in zip(sizes, counts, strict=True):
            self._first[path], blocks = blocks, blocks + count
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        weakref.finalize(self, os.close, self._lock)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        self._data = os.open(folder / "data", os.O_RDWR | os.O_CREAT, 0o600)
        weakref.finalize(self, os.close, self._data)
        os.ftruncate(self._data, max(1, blocks) * BLOCK_BYTES)
        present = os.open(folder / "present", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(present, max(1, blocks))
            self._present = mmap.mmap(present, max(1, blocks))
        finally:
            os.close(present)
        os.utime(folder)

    def missing(self, ranges: Sequence[Range]) -> list[tuple[str, int, int]]:
        """Runs of blocks of the ranges that are not there: path, first and last block of the file."""
        wanted = sorted({
            (path, block)
            for path, start, stop in ranges
            for block in range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES))
            if not self._present[self._first[path] + block]
        })  # fmt: skip
        runs: list[tuple[str, int, int]] = []
        for path, block in wanted:
            if runs and runs[-1][0] == path and runs[-1][2] == block - 1 and block - runs[-1][1] < LONGEST_READ_BLOCKS:
                runs[-1] = (path, runs[-1][1], block)
            else:
                runs.append((path, block, block))
        return runs

    def write(self, wanted: Range, data: bytes) -> None:
        """Keep whole blocks; other processes see each only after its bytes."""
        first = self._first[wanted.path] + wanted.start // BLOCK_BYTES
        written, view = 0, memoryview(data)
        while written < len(data):
            written += os.pwrite(self._data, view[written:], first * BLOCK_BYTES + written)
        for block in range(first, first + -(-len(data) // BLOCK_BYTES)):
            self._present[block] = 1

    def read(self, wanted: Range) -> bytes:
        """Bytes that are there."""
        offset = self._first[wanted.path] * BLOCK_BYTES + wanted.start
        data = os.pread(self._data, wanted.stop - wanted.start, offset)
        assert len(data) == wanted.stop - wanted.start, wanted
        return data


def _opened_cache(name: str, sizes: Mapping[str, int]) -> _Cache | None:
    """The cache of some files; None if they do not fit, or there is no folder to write to."""
    limit = cache_limit_bytes()
    needed = sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES for size in sizes.values())
    if needed > limit:
        return None
    try:
        root = cache_folder()
        own = root / f"{(boot_id() or 'boot').replace('-', '')[:12]}-{name}"
        root.mkdir(parents=True, exist_ok=True)
        _make_room(root, own, needed, limit)
        return _Cache(own, sizes)
    except OSError:
        return None


def _make_room(root: Path, own: Path, needed: int, limit: int) -> None:
    """Remove caches that no process uses, the one opened longest ago first, until the files fit.

    Raises:
        OSError: if they do not fit beside those in use, or on the disk.
    """
    others = sorted((path for path in root.iterdir() if path.is_dir() and path != own), key=_opened)
    used = {path: _stored_bytes(path) for path in others}
    for path in others:
        if sum(used.values()) + needed <= limit and _has_room(root, own, needed):
            return
        if _remove_if_unused(path):
            del used[path]
    if sum(used.values()) + needed > limit or not _has_room(root, own, needed):
        raise OSError("the shards do not fit")


def _has_room(root: Path, own: Path, needed: int) -> bool:
    disk = shutil.disk_usage(root)
    return disk.free - (needed - _stored_bytes(own)) > FREE_SHARE * disk.total


def _opened(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _stored_bytes(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return (folder / "data").stat().st_blocks * 512
    return 0


def _remove_if_unused(folder: Path) -> bool:
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()
    except OSError:
        return False
    finally:
        os.close(lock)
