"""Location of the artifact store: `--store`, else HEADRACE_HOME, else `./.headrace`.

- `store_url`: its URL; `check_shared`: refuses one that the nodes of a cluster cannot reach
"""

import os
from pathlib import Path

from data_schemas.errors import ConfigError, EnvironmentProblem


def store_url(option: str | None = None) -> str:
    """URL of the store; a local folder is made absolute, so that worker processes use the same one.

    Raises:
        EnvironmentProblem: if it is a file, or below one, or if its path cannot be resolved.
    """
    url = option or os.environ.get("HEADRACE_HOME") or "./.headrace"
    if "://" in url and not url.startswith("file://"):
        return url
    try:
        path = Path(url.removeprefix("file://")).expanduser().resolve()
        file = next((parent for parent in (path, *path.parents) if parent.exists() and not parent.is_dir()), None)
    except (OSError, RuntimeError) as error:
        raise EnvironmentProblem(
            f"the store {url} cannot be used: {error}; name a folder with --store or HEADRACE_HOME"
        ) from error
    if file is not None:
        raise EnvironmentProblem(
            f"the store {url} cannot be used: {file} is a file; name a folder with --store or HEADRACE_HOME"
        )
    return url if "://" in url else str(path)


def check_shared(url: str, is_declared: bool, by: str) -> None:
    """Refuse a store that only this machine can reach.

    Args:
        url: the store.
        is_declared: the config says that a local path is on a shared file system.
        by: who has to reach it.

    Raises:
        ConfigError: if it is on a local disk, or in the memory of this process.
    """
    scheme, separator, _ = url.partition("://")
    if (not separator or scheme in ("file", "local")) and is_declared:
        return
    if not separator or scheme in ("file", "local", "memory"):
        raise ConfigError(
            f"the store {url} is on this machine only, and {by} would have to use it: name one that all nodes reach "
            "with --store or HEADRACE_HOME (s3://bucket/store), or, if that path is on a file system that all nodes "
            "mount, set execution.shared_filesystem=true"
        )
