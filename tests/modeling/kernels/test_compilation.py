import warnings

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
