"""Whether a store can be used, before anything starts."""

import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_schemas.errors import EnvironmentProblem, HeadraceError
from infra.named_errors import check_writable
from infra.store.filesystem import Folder

_KEY = re.compile(r"[0-9a-f]{64}")
ATTEMPTS = 3
"""Attempts of each request of the check: a server that is away should be reported at once."""


def check_access(url: str) -> None:
    """List, write, read and remove a file of a store that other hosts may share; a local folder is created.

    Raises:
        EnvironmentProblem: naming the right that lacks, or what is wrong with bucket, region, address or credentials.
    """
    folder = Folder(url)
    if folder.is_local:
        check_writable(folder.local_path(""))
        _check_folders_of_others(folder.local_path())
        return
    if folder.is_in_process:
        return
    if folder.is_s3 and not folder.full():
        raise EnvironmentProblem(f"the store {url} names no bucket; give a URL such as s3://bucket/folder")
    # A name that headrace gc removes, in case it may not be removed now.
    name, data = f"runs/.access.{uuid.uuid4().hex[:8]}.tmp", uuid.uuid4().bytes
    steps: dict[str, Callable[[], object]] = {
        "list": lambda: folder.names("runs"),
        "write": lambda: folder.write(name, data),
        "read": lambda: folder.read(name),
        "remove": lambda: folder.remove_files([name]),
    }
    for step, request in steps.items():
        try:
            with fewer_attempts(folder, ATTEMPTS):
                answer = request()
        except HeadraceError:
            raise
        except Exception as error:
            raise EnvironmentProblem(
                f"the store {url} cannot be used: an attempt to {step} a file failed ({type(error).__name__}: "
                f"{error}); check its URL and permissions, or name another store with --store or HEADRACE_HOME"
            ) from error
        if step == "read" and answer != data:
            raise EnvironmentProblem(
                f"the store {url} cannot be used: a file that was just written has other content when it is read; "
                "use a store without a cache between"
            )


def _check_folders_of_others(store: Path) -> None:
    """Refuse a store of which another user made a folder that this one may not write to.

    Raises:
        EnvironmentProblem: if there is such a folder.
    """
    for path in sorted(path for path in store.iterdir() if path.is_dir()):
        if not os.access(path, os.W_OK | os.X_OK) and (path.name == "runs" or _has_keys(path)):
            raise EnvironmentProblem(
                f"the store {store} cannot be used: you may not write to {path}, which another user made; for a store "
                f"of several users, give it to a group of theirs (chgrp -R GROUP {store}; chmod -R g+rwX,g+s {store}) "
                "and let them all work with umask 002"
            )


def _has_keys(folder: Path) -> bool:
    """Whether it is the folder of a stage; what else is in a store is not ours, such as `lost+found`."""
    try:
        return any(_KEY.fullmatch(path.name) for path in folder.iterdir())
    except (PermissionError, FileNotFoundError):  # headrace gc may just have removed it
        return False


@contextmanager
def fewer_attempts(folder: Folder, attempts: int) -> Iterator[None]:
    """Repeat requests to S3 less often while the block runs."""
    if not folder.is_s3:
        yield
        return
    filesystem = folder.filesystem
    before, filesystem.attempts = filesystem.attempts, min(attempts, filesystem.attempts)
    try:
        yield
    finally:
        filesystem.attempts = before
