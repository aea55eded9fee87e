import ctypes
import os
import warnings
from pathlib import Path

import pytest
import torch

from modeling.feed_forward import FeedForward
from modeling.kernels import available, compilation
from modeling.layers.sparse_feed_forward import SparseFeedForward


def test_without_a_compiler_there_is_one_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compilation.library.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"could not be compiled \(.*no-such-compiler.*install gcc or clang"):
            assert compilation.library() is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            hidden, plain = torch.randn(1, 4), FeedForward(4, 6)
            with torch.no_grad():
                assert torch.equal(SparseFeedForward.from_feed_forward(plain)(hidden), plain(hidden))
    finally:
        compilation.library.cache_clear()


@pytest.mark.skipif(not available(), reason="needs a C compiler")
def test_the_library_is_compiled_once_and_cached(monkeypatch, tmp_path):
    path = compilation.build(tmp_path)
    written = path.stat().st_mtime_ns
    assert compilation.build(tmp_path) == path and path.stat().st_mtime_ns == written
    assert [file.name for file in tmp_path.iterdir()] == [path.name], "no temporary file is left"
    monkeypatch.setattr(compilation, "_processor", lambda: "another")
    assert compilation.build(tmp_path) != path


@pytest.mark.skipif(not available(), reason="needs a C compiler")
@pytest.mark.parametrize("size", [0, 4096, -1])
def test_a_damaged_library_is_compiled_again(size, tmp_path):
    path = compilation.build(tmp_path)
    complete = path.read_bytes()
    path.write_bytes(complete[:size] if size >= 0 else complete[:-1] + b"!")
    assert compilation.build(tmp_path).read_bytes()[:4] == b"\x7fELF"
    ctypes.CDLL(str(compilation.build(tmp_path)))
    assert len(list(tmp_path.iterdir())) == 1, "the damaged one is gone"


@pytest.mark.skipif(not available(), reason="needs a C compiler")
def test_without_a_usable_cache_the_library_comes_from_a_temporary_folder(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compilation._load()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", _no_home)
    assert compilation._load()


@pytest.mark.skipif(not available() or not hasattr(os, "memfd_create"), reason="needs a C compiler on Linux")
def test_a_library_of_a_filesystem_without_execution_is_loaded_from_memory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load, loaded = ctypes.CDLL, []

    def on_noexec(path: str) -> ctypes.CDLL:
        if path.startswith("/proc/"):
            loaded.append(path)
            return load(path)
        raise OSError(f"{path}: failed to map segment from shared object")

    monkeypatch.setattr(ctypes, "CDLL", on_noexec)
    assert compilation._load().linear_int8 and len(loaded) == 1


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")
