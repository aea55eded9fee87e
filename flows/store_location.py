"""Location of the artifact store: `--store`, else HEADRACE_HOME, else `./.headrace`."""

import os
from pathlib import Path


def store_url(option: str | None = None) -> str:
    """URL of the store; a local folder is made absolute, so that worker processes use the same one."""
    url = option or os.environ.get("HEADRACE_HOME") or "./.headrace"
    return url if "://" in url else str(Path(url).expanduser().resolve())
