"""Location of the artifact store: `--store`, else HEADRACE_HOME, else `./.headrace`."""

import os
from pathlib import Path

from data_schemas.errors import EnvironmentProblem


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
