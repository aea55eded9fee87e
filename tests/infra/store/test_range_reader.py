"""Ranges of files by blocks of a local cache, or each by a request."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.errors import ConfigError
from infra.store import range_reader
from infra.store.filesystem import Folder
from infra.store.range_reader import BLOCK_BYTES, LIMIT_VARIABLE, Range, RangeReader, cache_folder

SIZES = {"a": 3 * BLOCK_BYTES + 17, "b": 5, "c": 2 * BLOCK_BYTES, "empty": 0}
CONTENT = {name: np.random.default_rng(len(name) + size).bytes(size) for name, size in SIZES.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Folder:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = Folder(f"file://{tmp_path}/store")
    for name, content in CONTENT.items():
        folder.write(name, content)
    return folder


def requests_of(reader: RangeReader, *ranges: Range) -> list[tuple[str, int, int]]:
    """Requests that reading some ranges costs; checks the content."""
    seen: list[tuple[str, int, int]] = []
    read = Folder.read_range

    def counting(self, path, start, end):
        seen.append((path, start, end))
        return read(self, path, start, end)

    with mock.patch.object(Folder, "read_range", counting):
        assert reader.read(ranges) == [CONTENT[path][start:stop] for path, start, stop in ranges]
    return sorted(seen)


ranges = st.sampled_from(sorted(SIZES)).flatmap(
    lambda path: st.tuples(st.integers(0, SIZES[path]), st.integers(0, SIZES[path])).map(
        lambda ends: Range(path, min(ends), max(ends))
    )
)


@settings(max_examples=30)
@given(st.lists(st.lists(ranges, max_size=6), max_size=4), st.booleans())
def test_any_ranges_are_the_bytes_of_the_files(tmp_path_factory, batches, is_cached):
    place = tmp_path_factory.mktemp("ranges")
    store = Folder(f"file://{place}/store")
    for name, content in CONTENT.items():
        store.write(name, content)
    with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(place), LIMIT_VARIABLE: "" if is_cached else "0"}):
        reader = RangeReader(store, "x", SIZES)
        assert reader.is_cached is is_cached
        for batch in batches:
            requests_of(reader, *batch)


def test_blocks_are_requested_once_for_all_processes_of_a_host(folder):
    reader = RangeReader(folder, "x", SIZES)
    wanted = [Range("a", 10, 20), Range("a", BLOCK_BYTES + 1, BLOCK_BYTES + 2), Range("b", 1, 3)]
    assert requests_of(reader, *wanted) == [("a", 0, 2 * BLOCK_BYTES), ("b", 0, 5)]
    assert requests_of(reader, *wanted) == []
    assert requests_of(RangeReader(folder, "x", SIZES), *wanted, Range("a", BLOCK_BYTES, 3 * BLOCK_BYTES)) == [
        ("a", 2 * BLOCK_BYTES, 3 * BLOCK_BYTES)
    ]
    script = (
        "import sys; from infra.store.range_reader import *; from infra.store.filesystem import Folder\n"
        "Folder.read_range = lambda *arguments: sys.exit('it requests what is there')\n"
        f"print(RangeReader(Folder({folder.url!r}), 'x', {SIZES}).read([Range('b', 0, 5)])[0].hex())"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == CONTENT["b"].hex()


def test_other_content_and_another_boot_have_other_blocks(folder, monkeypatch):
    requests_of(RangeReader(folder, "x", SIZES), Range("b", 0, 5))
    assert requests_of(RangeReader(folder, "y", SIZES), Range("b", 0, 5)) == [("b", 0, 5)]
    assert requests_of(RangeReader(folder, "x", {"b": 5, "a": SIZES["a"]}), Range("b", 0, 5)) == [("b", 0, 5)]
    monkeypatch.setattr(range_reader, "boot_id", lambda: "another-boot")
    assert requests_of(RangeReader(folder, "x", SIZES), Range("b", 0, 5)) == [("b", 0, 5)]


def test_files_that_do_not_fit_are_read_by_their_ranges_alone(folder, monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, f"{BLOCK_BYTES}")
    reader = RangeReader(folder, "x", SIZES)
    assert not reader.is_cached
    assert requests_of(reader, Range("a", 10, 20), Range("a", 12, 14)) == [("a", 10, 20), ("a", 12, 14)]
    assert not cache_folder().exists()


def test_room_is_made_by_removing_what_no_process_uses(folder, monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, f"{14 * BLOCK_BYTES}")
    used = RangeReader(folder, "used", SIZES)
    whole = [Range(path, 0, size) for path, size in SIZES.items()]
    used.read(whole)
    unused = RangeReader(folder, "unused", SIZES)
    unused.read(whole)
    assert not RangeReader(folder, "third", SIZES).is_cached, "both are open"
    del unused
    assert RangeReader(folder, "third", SIZES).is_cached
    assert requests_of(used, *whole) == []
    assert requests_of(RangeReader(folder, "unused", SIZES), Range("b", 0, 5)) == [("b", 0, 5)]


@pytest.mark.parametrize("failing", ["pwrite", "pread"])
def test_a_disk_that_fails_is_not_used(folder, failing, monkeypatch):
    reader = RangeReader(folder, "x", SIZES)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    requests_of(reader, Range("a", 1, 3))
    assert not reader.is_cached


def test_a_folder_that_cannot_be_written_is_not_used(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert not RangeReader(folder, "x", SIZES).is_cached
    monkeypatch.setenv(LIMIT_VARIABLE, "much")
    with pytest.raises(ConfigError, match="HEADRACE_CACHE_BYTES is 'much'"):
        RangeReader(folder, "x", SIZES)


def test_a_write_that_was_cut_off_is_read_again(folder, monkeypatch):
    reader = RangeReader(folder, "x", SIZES)
    with pytest.raises(KeyboardInterrupt), mock.patch.object(os, "pwrite", side_effect=KeyboardInterrupt):
        reader.read([Range("a", 0, 100)])
    assert requests_of(reader, Range("a", 0, 100)) == [("a", 0, BLOCK_BYTES)]


def test_without_a_home_files_are_read_by_their_ranges(folder, monkeypatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    reader = RangeReader(folder, "x", SIZES)
    assert not reader.is_cached
    assert requests_of(reader, Range("a", 10, 20)) == [("a", 10, 20)]
