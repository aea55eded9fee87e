"""The process of a temporary Prefect server: `python -P temporary_server.py PORT [CHECK]`.

A program of its own, which imports nothing of Headrace's: a command starts it before it has imported Prefect itself.
"""

import sys

import uvicorn
from prefect.settings import get_current_settings

CHECK = "unless-configured"
"""Argument with which the process ends at once if the settings name another server, or allow none."""


def main(port: int, check: bool) -> None:
    """Serve on a port of this machine until SIGTERM."""
    settings = get_current_settings()
    if check and (settings.api.url or not settings.server.ephemeral.enabled):
        return
    app = "prefect.server.api.server:create_app"
    uvicorn.run(app, factory=True, host="127.0.0.1", port=port, log_level="error", lifespan="on")


if __name__ == "__main__":
    main(int(sys.argv[1]), CHECK in sys.argv)
