"""The cache of compiled functions: missing, full, damaged and outdated files."""

import errno
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SOURCE = """
from stages.common.compiled import compiled
from callee import FACTOR, shift

@compiled
def weighted(values):
    total = 0
    for value in values:
        total += FACTOR * shift(value)
    return total
"""
CALLEE = """
from stages.common.compiled import compiled

FACTOR = {factor}

@compiled
def shift(value):
    return value + {shift}
"""
DAMAGE = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "zeros in the machine code": lambda data: data[: len(data) // 2] + bytes(64) + data[len(data) // 2 + 64 :],
    "a flipped bit": lambda data: data[:1000] + bytes([data[1000] ^ 1]) + data[1001:],
    "no cache file": lambda data: b"cos\nsystem\n(S'false'\ntR." * 10,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources of two modules, and a home without a cache."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "caller.py").write_text(SOURCE)
    (tmp_path / "callee.py").write_text(CALLEE.format(factor=10, shift=1))
    return tmp_path


def load(folder: Path) -> ModuleType:
    """The module `caller` as a process sees it that has just started."""
    for name in ("callee", "caller"):
        spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    del sys.modules["callee"]
    return sys.modules.pop("caller")


def result(folder: Path, dtype: type = np.int64) -> tuple[float, bool]:
    """The sum of 10 (x + 1) for x = 1, 2, and whether the code came from the cache."""
    function = load(folder).weighted
    value = function(np.array([1, 2], dtype=dtype))
    return value, sum(function.stats.cache_hits.values()) == 1


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.compiled"))


def test_code_is_compiled_once_for_each_type(folder):
    assert [result(folder), result(folder), result(folder, np.float64)] == [(50, False), (50, True), (50.0, False)]
    assert {path.parent for path in files(folder)} == {folder / "__pycache__"}
    assert [path.name.split("-")[0] for path in files(folder)] == ["callee.shift"] * 2 + ["caller.weighted"] * 2


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_files_are_compiled_again_and_replaced(folder, damage):
    result(folder)
    for path in files(folder):
        path.write_bytes(damage(path.read_bytes()))
    assert [result(folder), result(folder)] == [(50, False), (50, True)]


def test_a_source_tree_that_cannot_be_written_uses_the_home(folder):
    (folder / "__pycache__").touch()
    assert [result(folder), result(folder)] == [(50, False), (50, True)]
    assert {path.parent for path in files(folder)} == {folder / "home/.cache/headrace/compiled"}


@pytest.mark.parametrize("home", ["/dev/null", "", None])
def test_without_a_folder_to_write_to_code_stays_in_memory(folder, monkeypatch, home):
    (folder / "__pycache__").touch()
    monkeypatch.setenv("HOME", home or "/dev/null")
    if home is None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(os, "getuid", lambda: 12345678)  # no entry in /etc/passwd
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache") if home == "" else None
    assert result(folder) == (50, False)
    assert files(folder) == []


def test_a_full_disk_leaves_no_temporary_files(folder, monkeypatch):
    def fail(path: Path, data: bytes) -> int:
        path.open("wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    assert result(folder) == (50, False)
    assert list((folder / "__pycache__").iterdir()) == []


@pytest.mark.parametrize(("values", "expected"), [({"factor": 20, "shift": 1}, 100), ({"factor": 10, "shift": 2}, 70)])
def test_code_is_outdated_if_a_function_or_constant_of_another_file_changes(folder, values, expected):
    assert result(folder) == (50, False)
    (folder / "callee.py").write_text(CALLEE.format(**values))
    assert result(folder) == (expected, False)


def test_the_global_interpreter_lock_is_released(folder):
    assert load(folder).weighted.targetoptions["nogil"]
