"""The Prefect server of a run: the one at PREFECT_API_URL, or a temporary one on this machine.

- `check_server`: refuses a server that cannot be used, or starts the temporary one, before anything else starts
- `api_url`: URL of the configured server
"""

import atexit
import json
import re
import time
from functools import wraps
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from prefect.client import base
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)
from pydantic import ValidationError

from data_schemas.errors import EnvironmentProblem
from flows.prefect_server.process import launched
from infra.named_errors import check_writable, storage_problem

ANSWER_SECONDS = 10.0
DATABASE_BYTES = 8 << 20
"""Room for a new database and its journal; 4.9 MB were measured."""
STARTS = 3
"""Starts of a temporary server if another process takes its port."""
PORT_IS_TAKEN = "Errno 98"
OTHER_HOME = f"set PREFECT_HOME to another folder (it needs {DATABASE_BYTES / 1e6:.1f} MB)"
WITHOUT_URL = "unset PREFECT_API_URL to use a temporary server"


def api_url() -> str | None:
    """URL of the configured server; None if there is none, so that a temporary one is used."""
    return get_current_settings().api.url or None


def check_server() -> None:
    """Ask the configured server for an answer, or start a temporary one.

    Raises:
        EnvironmentProblem: if it cannot be reached or used, or cannot start.
    """
    settings = get_current_settings()
    url = api_url()
    if url:
        _check_answer(url)
    elif not settings.server.ephemeral.enabled:
        raise EnvironmentProblem(
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE is false and PREFECT_API_URL is not set: set one of them"
        )
    else:
        check_writable(settings.home, OTHER_HOME, DATABASE_BYTES)
        TemporaryServer().start()


def _check_answer(url: str) -> None:
    server = f"the Prefect server at PREFECT_API_URL={re.sub('//[^/]*@', '//', url)}"
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": ANSWER_SECONDS}, sync_client=True) as client,
        ):
            answer = client._client.post("/flows/count", json={}).json()
            if not isinstance(answer, int):
                raise TypeError(answer)
            client.raise_for_api_version_mismatch()
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        raise EnvironmentProblem(f"{server} answers {status}: {_what_helps(status)}") from error
    except (TypeError, json.JSONDecodeError, ValidationError) as error:
        raise EnvironmentProblem(f"{server} is no Prefect API: {_what_helps(404)}") from error
    except Exception as error:
        reason = (str(error) or type(error).__name__)[:300]
        raise EnvironmentProblem(
            f"{server} cannot be used ({reason}); start it (prefect server start), correct the URL, or {WITHOUT_URL}"
        ) from error


def _what_helps(status: int) -> str:
    if status in (401, 403):
        return (
            "it needs a key that it accepts in PREFECT_API_KEY, or on a server of your own user:password in "
            "PREFECT_API_AUTH_STRING"
        )
    if status < 500:
        return f"the URL of a server of your own ends in /api, such as http://127.0.0.1:4200/api; or {WITHOUT_URL}"
    return f"look at its log, or {WITHOUT_URL}"


class TemporaryServer(SubprocessASGIServer):
    """Prefect's server in a child process, which Prefect's clients find and use.

    Prefect's own start asks through the user's proxy whether the server is up, and starts a server forever that ends.
    """

    def start(self, timeout: int | None = None) -> None:
        """Start it, unless it runs already, and wait until it answers.

        Raises:
            EnvironmentProblem: if it does not, with the last line of its output.
        """
        if self.running:
            return
        deadline = time.monotonic() + (timeout or PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())
        for _ in range(STARTS):
            server = launched()
            self.port, self.server_process = server.port, server.process
            if server.answers(deadline):
                self.running = True
                atexit.register(self.stop)
                return
            if PORT_IS_TAKEN not in server.text:
                break
        self.stop()
        raise EnvironmentProblem(_failure(server.text))


def _failure(output: str) -> str:
    """Why the temporary server did not start, from its output."""
    home = get_current_settings().home
    if problem := storage_problem(RuntimeError(output), str(home), OTHER_HOME):
        return str(problem)
    errors = re.findall(r"^[\w.]+(?:Error|Exception)\b.*", output, re.MULTILINE)
    reason = (errors or ["no answer in time"])[-1]
    return (
        f"the temporary Prefect server did not start: {reason:.300}; its database is in PREFECT_HOME={home}: if it is "
        f"damaged or of another version of Prefect, {OTHER_HOME}, or set PREFECT_API_URL to a running server"
    )


def _direct_on_loopback(client: Any) -> None:
    """Let a class of clients reach this machine without a proxy, and without reading settings of proxies.

    httpx refuses what it does not support, such as SOCKS, even for URLs that no proxy is for.
    """
    initialize = client.__init__

    @wraps(initialize)
    def direct(self: Any, *arguments: Any, **settings: Any) -> None:
        if is_loopback(str(settings.get("base_url", ""))):
            settings.setdefault("trust_env", False)
        initialize(self, *arguments, **settings)

    client.__init__ = direct


def is_loopback(url: str) -> bool:
    """True if a URL names this machine."""
    host = urlsplit(url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


for _client in (base.PrefectHttpxAsyncClient, base.PrefectHttpxSyncClient):
    _direct_on_loopback(_client)
