"""Where artifacts are kept: `--store`, else HEADRACE_HOME, else `./.headrace`."""

import os
from pathlib import Path


def store_url(given: str | None = None) -> str:
    """The store's URL; a local folder is made absolute, so that worker processes find the same one."""
    url = given or os.environ.get("HEADRACE_HOME") or "./.headrace"
    return url if "://" in url else str(Path(url).expanduser().resolve())
