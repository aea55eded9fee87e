"""Folder for what this package keeps between runs: compiled kernels, measured rates, copies of remote files."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """headrace/<name> in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        FileNotFoundError: if there is no home.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:  # neither HOME nor an entry of this user in /etc/passwd
        raise FileNotFoundError("there is no home folder; set XDG_CACHE_HOME to a folder") from error
    return cache / "headrace" / name
