"""The process of a temporary Prefect server.

Its start takes longer than the imports of a run, beside which a command lets it begin (`launch`).

- `launch`: start it for a run that will need one; `launched`: the one so started, else a new one
- `ServerProcess`: its port, its process and what it prints
- `uses_temporary_server`: whether Prefect's settings name no other
"""

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO

from flows.prefect_server.environment import OWN_VARIABLES
from infra.workers.orphans import prepare_process

ANSWER_SECONDS = 10.0
STOP_SECONDS = 5.0
CHECK = "unless-configured"
"""As in `temporary_server`."""


@dataclass(frozen=True)
class ServerProcess:
    """A server that starts, or runs."""

    port: int
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    @classmethod
    def start(cls) -> "ServerProcess":
        """Start a server on a free port; returns at once."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        output = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the server may write
        command = _command(port) + ([] if _knows_settings() else [CHECK])
        return cls(port, subprocess.Popen(command, env=_environment(), stdout=output, stderr=output), output)

    def answers(self, deadline: float) -> bool:
        """Wait until it answers; False if it ends or the time is over."""
        url = f"http://127.0.0.1:{self.port}/api/health"
        without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError, HTTPException):
                without_proxy.open(url, timeout=ANSWER_SECONDS).close()
                return True
            time.sleep(0.05)
        return False

    @property
    def text(self) -> str:
        """All that it printed."""
        self.output.seek(0)
        return self.output.read().decode(errors="replace")

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_waiting: list[ServerProcess] = []
"""The server that `launch` started, until it is used."""


def launch() -> None:
    """Start a temporary server unless one is configured; `TemporaryServer` waits for it and reports what fails.

    Before Prefect is imported, which takes most of a second, the server's own process looks for other settings than the
    variable PREFECT_API_URL.
    """
    is_other = not uses_temporary_server() if _knows_settings() else bool(os.environ.get("PREFECT_API_URL"))
    if is_other or _waiting:
        return
    prepare_process()
    with contextlib.suppress(OSError):
        _waiting.append(ServerProcess.start())
        atexit.register(_stop_unused)


def uses_temporary_server() -> bool:
    """Whether a run has a temporary server: Prefect's settings name none, and allow it.

    Prefect, whose import takes most of a second, is asked only if it may have found settings of the user's.
    """
    if not _knows_settings() and not _may_be_configured():
        return True
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    return not settings.api.url and settings.server.ephemeral.enabled


def _knows_settings() -> bool:
    return "prefect.settings" in sys.modules


def launched() -> ServerProcess:
    """The server that `launch` has started, else another one."""
    return _waiting.pop() if _waiting else ServerProcess.start()


def _stop_unused() -> None:
    while _waiting:
        _waiting.pop().stop()


def _may_be_configured() -> bool:
    """Whether there is a variable or a file in which Prefect looks for settings, other than Headrace's defaults."""
    variables = {name.upper() for name in os.environ} - {"PREFECT_HOME", *OWN_VARIABLES}
    home = os.path.expanduser(os.environ.get("PREFECT_HOME", "~/.prefect"))  # noqa: PTH111 - it raises nothing
    files = (f"{home}/profiles.toml", "prefect.toml", ".env")
    if any(name.startswith("PREFECT") for name in variables) or any(os.path.lexists(file) for file in files):
        return True
    return "tool.prefect" in _text("pyproject.toml")


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _command(port: int) -> list[str]:
    return [sys.executable, "-P", str(Path(__file__).with_name("temporary_server.py")), str(port)]


def _environment() -> dict[str, str]:
    settings = {}
    if _knows_settings():
        from prefect.settings import get_current_settings

        settings = get_current_settings().to_environment_variables(exclude_unset=True)
    return {
        **os.environ,
        **settings,
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    }
