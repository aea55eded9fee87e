"""Errors of storage and of libraries, as errors that say what a user can do.

- `named_errors`: translates what is raised inside a block
- `storage_problem`: the sentence for an error that a filesystem caused: full, over quota, read-only, not permitted
- `check_writable`: refuses a folder that nothing can be written to
"""

import asyncio
import errno
import getpass
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_schemas.errors import EnvironmentProblem, HeadraceError
from data_schemas.public_urls import public_text

INTERRUPTS: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)
"""Requests to stop; every other `BaseException` is an error of a library (pyo3's panics, torch's checkpoints)."""

STATES_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
TRANSLATED = (*STATES_OF_A_DISK, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EFBIG)
# Libraries in Rust and C++, SQLite and Ray pass on the message without the number.
MESSAGES = {
    "No space left on device": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "Local disk is full": errno.ENOSPC,
    "No usable temporary directory": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "Read-only file system": errno.EROFS,
    "attempt to write a readonly database": errno.EROFS,
    "unable to open database file": errno.EACCES,
}
OTHER_STORE = "use another store with --store or HEADRACE_HOME"


@contextmanager
def named_errors(location: str, interrupts: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Translate errors of storage, and errors that are no `Exception`, which no handler expects.

    Args:
        location: the store's URL, for errors that name no file.
        interrupts: more requests to stop, which pass like Ctrl-C, also out of an error that a library made of them.

    Raises:
        EnvironmentProblem: instead of an error that a filesystem caused.
        RuntimeError: instead of a `BaseException` of a library, with its name, and of an error with a password.
    """
    try:
        yield
    except BaseException as error:
        cause = error if _is_public(error) else None  # the flow engine logs tracebacks with all causes
        if isinstance(error, (HeadraceError, *INTERRUPTS, *interrupts)):
            if cause is None:
                raise error from None
            raise
        if stop := wrapped_in_library_error(error, (*INTERRUPTS, *interrupts, HeadraceError)):
            raise stop from None
        if problem := storage_problem(error, location):
            raise problem from cause
        name = type(error).__qualname__
        if not isinstance(error, Exception):
            raise RuntimeError(public_text(f"{type(error).__module__}.{name}: {error}")) from cause
        if cause is None:
            raise RuntimeError(public_text(f"{name}: {error}")) from None
        raise


def wrapped_in_library_error(error: BaseException, kinds: tuple[type[BaseException], ...]) -> BaseException | None:
    """The error of some kinds that torch's checkpoints, which catch everything, wrap into one of theirs."""
    if isinstance(error, Exception):
        return None
    return next((cause for cause, is_context in _causes(error) if not is_context and isinstance(cause, kinds)), None)


def _is_public(error: BaseException) -> bool:
    """Whether no message of an error and its causes has a URL with a password or a signature."""
    return all(public_text(str(cause)) == str(cause) for cause, _ in _causes(error))


def storage_problem(error: BaseException, location: str, remedy: str = OTHER_STORE) -> EnvironmentProblem | None:
    """The sentence for an error that a filesystem caused, directly or as the cause of another; None for others.

    Args:
        error: any error.
        location: the store's URL, for errors that name no file.
        remedy: what helps besides removing the cause.
    """
    location = location.removeprefix("file://")
    for cause, is_context in _causes(error):
        number = _number(cause)
        if number is None or (is_context and number not in STATES_OF_A_DISK):
            continue  # an error during the handling of another is itself the news, unless the disk explains both
        path = _path(cause, number, location)
        if number != errno.EEXIST or _file_in_path(path):
            return EnvironmentProblem(_sentence(number, path, str(getattr(cause, "strerror", None) or cause), remedy))
    return None


def _causes(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """The error and its causes, including those that checkpoints, Ray's trainer and databases keep in fields."""
    pending, seen = [(error, False)], set()
    while pending:
        cause, is_context = pending.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause, is_context
        for name in ("_failures", "worker_failures"):
            failures = getattr(cause, name, None)
            for failure in failures.values() if isinstance(failures, dict) else ():
                pending.append((failure[0] if isinstance(failure, tuple) else failure, is_context))
        nested = [getattr(cause, "cause", None), getattr(cause, "orig", None), cause.__cause__]
        if isinstance(cause, BaseExceptionGroup):
            nested += cause.exceptions
        pending += [(item, is_context) for item in nested if isinstance(item, BaseException)]
        if cause.__context__ is not None:
            pending.append((cause.__context__, True))


def _number(error: BaseException) -> int | None:
    """The `errno` that a sentence exists for."""
    number = error.errno if isinstance(error, OSError) else None
    if number in TRANSLATED:
        return number
    if isinstance(error, PermissionError):
        return errno.EACCES  # of an object store
    if isinstance(error, HeadraceError):
        return None
    message = str(error)
    return next((number for text, number in MESSAGES.items() if text in message), None)


def _path(error: BaseException, number: int, location: str) -> str:
    """The file of the error; without one, the store, or the fullest of the filesystems that a run writes to."""
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    if isinstance(name, str | bytes):
        return os.fsdecode(name)
    if number != errno.ENOSPC:
        return location
    folders = ["/dev/shm", os.environ.get("TMPDIR", "/tmp"), os.environ.get("HOME", "/"), location]
    existing = [_existing(Path(folder)) for folder in folders if "://" not in folder]
    return str(min(reversed(existing), key=lambda folder: shutil.disk_usage(folder).free))


def _sentence(number: int, path: str, message: str, remedy: str) -> str:
    if "://" in path:
        return f"{path}: {message}; check the store's permissions and limits, or {remedy}"
    place = _existing(Path(path))
    mount = next(parent for parent in (place, *place.parents) if os.path.ismount(parent) or parent == parent.parent)
    if number == errno.ENOSPC:
        return (
            f"{path}: no space left on the filesystem {mount}, {_room(place)}; free some space there, or "
            f"{remedy}; the same command then resumes"
        )
    if number == errno.EDQUOT:
        return (
            f"{path}: the disk quota of {_user()} on the filesystem {mount} is used up; remove files there, or "
            f"{remedy}; the same command then resumes"
        )
    if number == errno.EROFS:
        return f"{path}: the filesystem {mount} is read-only; mount it writable, or {remedy}"
    if number == errno.EFBIG:
        return (
            f"{path}: the file became larger than this process or the filesystem {mount} allows; raise the limit "
            f"(ulimit -f), or {remedy}"
        )
    if number in (errno.ENOTDIR, errno.EEXIST):
        return f"{_file_in_path(path) or path} is a file, but a folder is needed there; move the file, or {remedy}"
    return (
        f"{path}: {message}: {_user()} may not use it (filesystem {mount}); change its permissions, or run as a user "
        f"who may, or {'if it is the store, ' * (remedy == OTHER_STORE)}{remedy}"
    )


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists and can be looked at."""
    for parent in (path.absolute(), *path.absolute().parents):
        with suppress(OSError):
            if parent.exists():
                return parent
    return Path("/")


def _file_in_path(path: str) -> str | None:
    place = _existing(Path(path))
    return None if place.is_dir() else str(place)


def _room(path: Path) -> str:
    statistics = os.statvfs(path)
    if statistics.f_files and not statistics.f_favail:
        return "which has no room for more files (inodes)"
    return f"which has {shutil.disk_usage(path).free / 1e6:,.1f} MB free"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user {os.getuid()}"


def check_writable(folder: Path, remedy: str = OTHER_STORE, size: int = 1 << 20) -> None:
    """Create a folder, unless it exists, and in it a temporary file.

    Args:
        folder: a local folder.
        remedy: what helps besides removing the cause.
        size: bytes of the file.

    Raises:
        EnvironmentProblem: if that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = str(folder)  # not that of the temporary file
        raise storage_problem(error, str(folder), remedy) or EnvironmentProblem(
            f"{folder}: {error.strerror}; {remedy}"
        ) from error
