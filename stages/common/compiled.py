"""Functions compiled by numba, with a cache on disk that can be missing, full or damaged.

- `compiled`: the decorator of all compiled functions
- `CheckedCache`: the cache of one function

numba's own cache refuses to work without a folder to write to, ends every start after a power cut truncated a file, can
return another call's code after two processes wrote at once, and does not notice that a function or constant of another
file changed.
"""

import contextlib
import functools
import hashlib
import inspect
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.core.serialize import dumps

from data_schemas.user_cache import cache_folder

Function = TypeVar("Function", bound=Callable[..., Any])
_rebuild: Any = CompileResult._rebuild
_dumps: Any = dumps
DIGEST_BYTES = hashlib.sha256().digest_size


def compiled(function: Function) -> Function:
    """Compile a function for each combination of argument types that it is called with; it releases the GIL."""
    dispatcher: Any = numba.njit(nogil=True)(function)
    if hasattr(dispatcher, "_cache"):  # not with NUMBA_DISABLE_JIT
        dispatcher._cache = CheckedCache(function)
    return cast(Function, dispatcher)


class CheckedCache(_Cache):
    """Compiled code in a file for each combination of argument types.

    A file begins with the sha256 of the rest. Its name holds the digest of everything that decides the code, so that
    processes that write at once write the same. What cannot be read is compiled again; what cannot be written stays in
    memory.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @property
    def cache_path(self) -> str:
        """The preferred folder."""
        return str(self._folders()[0])

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled function, or None if no folder has an intact file."""
        target_context.refresh()
        for folder in self._folders():
            with contextlib.suppress(Exception):  # unpickling raises anything
                data = (folder / self._file_name(sig, target_context.codegen())).read_bytes()
                if hashlib.sha256(data[DIGEST_BYTES:]).digest() == data[:DIGEST_BYTES]:
                    return _rebuild(target_context, *pickle.loads(data[DIGEST_BYTES:]))
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the compiled function to the first folder that can hold it."""
        if data.library.has_dynamic_globals:  # addresses of this process
            return
        payload = _dumps(data._reduce())
        for folder in self._folders():
            with contextlib.suppress(OSError):
                _write(folder / self._file_name(sig, data.codegen), hashlib.sha256(payload).digest() + payload)
                return

    def enable(self) -> None:
        """Nothing: it is always enabled."""

    def disable(self) -> None:
        """Nothing: it is always enabled."""

    def flush(self) -> None:
        """Nothing: files of other code have other names."""

    def _folders(self) -> list[Path]:
        """$NUMBA_CACHE_DIR, or `__pycache__` beside the source and headrace/compiled in $XDG_CACHE_HOME or ~/.cache."""
        if folder := os.environ.get("NUMBA_CACHE_DIR"):
            return [Path(folder)]
        folders = [Path(inspect.getfile(self._function)).parent / "__pycache__"]
        with contextlib.suppress(FileNotFoundError):  # there is no home
            folders.append(cache_folder("compiled"))
        return folders

    def _file_name(self, sig: Any, codegen: Any) -> str:
        parts = (numba.__version__, sys.version, str(sig), codegen.magic_tuple(), _fingerprint(self._function))
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
        return f"{self._function.__module__}.{self._function.__qualname__}-{digest}.compiled"


@functools.cache
def _fingerprint(function: Callable[..., Any]) -> str:
    """Digest of the sources of a function and of all functions that it calls, and of the constants that they read."""
    digest = hashlib.sha256()
    for called in sorted(_called(function, set()), key=lambda called: (called.__module__, called.__qualname__)):
        digest.update(hashlib.sha256(Path(inspect.getfile(called)).read_bytes()).digest())
        for name in sorted(called.__code__.co_names):
            constant = called.__globals__.get(name)
            if isinstance(constant, np.ndarray):
                digest.update(repr((name, constant.dtype, constant.shape)).encode() + constant.tobytes())
            elif isinstance(constant, int | float | tuple | str | np.generic):
                digest.update(repr((name, constant)).encode())
    return digest.hexdigest()


def _called(function: Any, seen: set[Any]) -> set[Any]:
    """The function and the compiled functions that it calls, directly or through others."""
    if function not in seen:
        seen.add(function)
        for name in function.__code__.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, Dispatcher):
                _called(value.py_func, seen)
    return seen


def _write(path: Path, data: bytes) -> None:
    """Write a whole file or none.

    Raises:
        OSError: if there is no room, or it is not permitted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _removed_on_error(path.parent) as temporary:
        temporary.write_bytes(data)
        temporary.replace(path)


@contextlib.contextmanager
def _removed_on_error(folder: Path) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(dir=folder, suffix=".tmp")
    os.close(descriptor)
    try:
        yield Path(name)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
