"""The C files become a library of this machine, once for each processor, compiler and version of the files."""

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

SOURCES = tuple(sorted(Path(__file__).parent.glob("*.[ch]")))
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-ffp-contract=fast", "-shared", "-fPIC", "-lm")
COMPILE_SECONDS = 60


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None, and one warning, where they cannot be had."""
    try:
        return _declared(_load())
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        warnings.warn(
            f"the kernels that skip zeros could not be compiled ({detail.strip():.300}); dense products take their "
            "place, with the same results and no speed from zeros: install gcc or clang, or name a compiler in CC",
            stacklevel=2,
        )
        return None


def cache_folder() -> Path:
    """Where libraries are kept between processes: $XDG_CACHE_HOME or ~/.cache, headrace/kernels."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / "kernels"


def compiler() -> list[str]:
    """The command in CC, or the first of cc, gcc and clang.

    Raises:
        FileNotFoundError: where there is none.
    """
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    raise FileNotFoundError("there is no C compiler: no CC, cc, gcc or clang")


def build(folder: Path) -> Path:
    """The library's path in `folder`, compiled if it is not there; whole or absent, however many processes build it.

    Raises:
        OSError, subprocess.SubprocessError: no compiler, an unwritable folder, or a compiler that fails.
    """
    command = compiler()
    texts = [source.read_text() for source in SOURCES]
    key = hashlib.sha256("\0".join([*texts, *command, *FLAGS, _processor()]).encode()).hexdigest()[:16]
    path = folder / f"kernels-{key}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fresh = Path(scratch) / path.name
            subprocess.run(
                [*command, "-o", str(fresh), *(str(one) for one in SOURCES if one.suffix == ".c"), *FLAGS],
                check=True,
                capture_output=True,
                text=True,
                timeout=COMPILE_SECONDS,
            )
            fresh.replace(path)
    return path


def _load() -> ctypes.CDLL:
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        with tempfile.TemporaryDirectory() as passing:  # a loaded library outlives its file
            return ctypes.CDLL(str(build(Path(passing))))
    return ctypes.CDLL(str(build(folder)))


def _declared(kernels: ctypes.CDLL) -> ctypes.CDLL:
    """With the types of the arguments, so that plain numbers can be given."""
    at, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    kernels.sparse_product.argtypes = [at] * 4 + [size] * 3
    kernels.feed_forward_int8.argtypes = [at] * 4 + [number] + [at] * 4 + [size] * 3
    kernels.linear_int8.argtypes = [at] * 5 + [number] + [size] * 3
    kernels.linear_packed.argtypes = [at] * 5 + [size] * 5
    kernels.decode.argtypes = [at, size, size, at, at, at]
    kernels.sparse_product.restype = None
    return kernels


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    wanted = ("flags", "Features", "model name")
    return platform.machine() + "".join(sorted({line for line in lines if line.startswith(wanted)}))
