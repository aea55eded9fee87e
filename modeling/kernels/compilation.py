"""Compile the C kernels into a shared library, once for each processor, compiler and version of the sources."""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

from data_schemas.user_cache import cache_folder

SOURCES = tuple(sorted(Path(__file__).parent.glob("*.[ch]")))
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-ffp-contract=fast", "-shared", "-fPIC", "-lm")
COMPILE_SECONDS = 60


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None, with a single warning, if they cannot be compiled or loaded."""
    try:
        return _with_signatures(_load())
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        warnings.warn(
            f"the C kernels could not be compiled ({detail.strip():.300}); torch's operations replace them, with the "
            "same results but slower: install gcc or clang, or set CC to a C compiler",
            stacklevel=2,
        )
        return None


def compiler() -> list[str]:
    """Compiler command: that in CC, or the first of cc, gcc and clang.

    Raises:
        FileNotFoundError: if there is none.
    """
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    raise FileNotFoundError("there is no C compiler: no CC, cc, gcc or clang")


def build(folder: Path) -> Path:
    """Path of the library in `folder`, compiled if it does not exist or is damaged; safe with several processes.

    The sha256 of a library is in its name: a truncated one would end the process with a bus error.

    Raises:
        OSError, subprocess.SubprocessError: if there is no compiler, it fails, or the folder is not writable.
    """
    command = compiler()
    texts = [source.read_text() for source in SOURCES]
    key = hashlib.sha256("\0".join([*texts, *command, *FLAGS, _processor()]).encode()).hexdigest()[:16]
    for path in folder.glob(f"kernels-{key}-*.so"):
        with contextlib.suppress(OSError):
            if path.stem.endswith(f"-{_digest(path)}"):
                return path
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        temporary = Path(scratch) / "kernels.so"
        subprocess.run(
            [*command, "-o", str(temporary), *(str(source) for source in SOURCES if source.suffix == ".c"), *FLAGS],
            check=True,
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS,
        )
        return temporary.replace(folder / f"kernels-{key}-{_digest(temporary)}.so")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _load() -> ctypes.CDLL:
    """From the cache, or from a temporary folder if the cache cannot be written."""
    try:
        return _opened(build(cache_folder("kernels")))
    except (OSError, subprocess.SubprocessError):
        with tempfile.TemporaryDirectory() as scratch:  # a loaded library outlives its file
            return _opened(build(Path(scratch)))


def _opened(path: Path) -> ctypes.CDLL:
    """The library in a file; from memory if nothing in its filesystem may be executed (noexec)."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        if not hasattr(os, "memfd_create"):
            raise
        with os.fdopen(os.memfd_create(path.name), "wb") as memory:
            memory.write(path.read_bytes())
            memory.flush()
            return ctypes.CDLL(f"/proc/self/fd/{memory.fileno()}")


def _with_signatures(kernels: ctypes.CDLL) -> ctypes.CDLL:
    """Declare the argument types, so that calls can pass Python numbers."""
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    kernels.sparse_product.argtypes = [pointer] * 4 + [size] * 3
    kernels.feed_forward_int8.argtypes = [pointer] * 4 + [number] + [pointer] * 4 + [size] * 3
    kernels.linear_int8.argtypes = [pointer] * 5 + [number] + [size] * 3
    kernels.linear_packed.argtypes = [pointer] * 5 + [size] * 5
    kernels.decode.argtypes = [pointer, size, size, pointer, pointer, pointer]
    kernels.sparse_product.restype = None
    return kernels


def _processor() -> str:
    """Identity of the processor, on which -march=native depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    fields = ("flags", "Features", "model name")
    return platform.machine() + "".join(sorted({line for line in lines if line.startswith(fields)}))
