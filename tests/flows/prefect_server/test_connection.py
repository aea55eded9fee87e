"""Prefect servers that cannot be used, and proxies, which are not for this machine."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

from data_schemas.errors import EnvironmentProblem
from flows.prefect_server import connection, environment, process
from flows.prefect_server.connection import TemporaryServer, check_server, is_loopback

SOCKS = "socks://127.0.0.1:9"
"""As desktops set it; httpx knows socks5 only, and that with a package that is not installed."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@contextlib.contextmanager
def server(status: int, body: str) -> Iterator[str]:
    """URL of a server with one answer to everything but the CSRF token and the version."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = (json.dumps("3.8.8") if self.path.endswith("version") else body).encode()
            self.send_response(404 if "csrf" in self.path else status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_address[1]}/api"
    running.shutdown()


def refusal(url: str) -> str:
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(EnvironmentProblem) as info:
        check_server()
    message = str(info.value)
    assert "\n" not in message and message.startswith("the Prefect server at PREFECT_API_URL=")
    return message


@pytest.mark.parametrize(("status", "body", "expected"), [
    (200, "<html>a page</html>", "is no Prefect API: the URL of a server of your own ends in /api"),
    (200, '{"another": "API"}', "is no Prefect API"),
    (401, "{}", "PREFECT_API_KEY, or on a server of your own user:password in PREFECT_API_AUTH_STRING"),
    (500, "busy", "answers 500: look at its log"),
])  # fmt: skip
def test_a_server_that_is_no_usable_prefect_api_is_refused(status, body, expected):
    with server(status, body) as url:
        message = refusal(url.replace("//", "//user:secret@"))
    assert expected in message and "secret" not in message


@pytest.mark.parametrize(("url", "expected"), [
    ("http://127.0.0.1:9/api", "Connection refused"), ("localhost:4200/api", "unsupported protocol"),
    ("nonsense", "missing an 'http://'"),
])  # fmt: skip
def test_a_server_that_cannot_be_reached_is_refused(url, expected):
    assert expected in refusal(url)


def test_a_server_that_never_answers_is_refused_in_time(monkeypatch):
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "timed out" in refusal(f"http://127.0.0.1:{silent.getsockname()[1]}/api")


def test_proxies_are_not_for_this_machine(monkeypatch):
    for name in PROXIES:
        monkeypatch.setenv(name, SOCKS if name.lower() == "all_proxy" else "http://127.0.0.1:9")
    with server(200, "7") as url, temporary_settings({PREFECT_API_URL: url}):
        check_server()
        get_client()  # the asynchronous one too
        assert "ALL_PROXY" in os.environ, "others still use it"
    with pytest.raises(EnvironmentProblem, match="Unknown scheme for proxy URL"), temporary_settings(
        {PREFECT_API_URL: "http://prefect.invalid/api"}
    ):  # fmt: skip
        check_server()


@pytest.mark.parametrize(("url", "expected"), [
    ("http://127.0.0.1:4200/api", True), ("http://localhost/api", True), ("http://[::1]:4200/api", True),
    ("http://0.0.0.0:4200/api", True), ("http://127.1.2.3/api", True), ("http://10.0.0.1/api", False),
    ("https://api.prefect.cloud/api", False), ("http://localhost.example.org/api", False), ("", False),
])  # fmt: skip
def test_urls_of_this_machine(url, expected):
    assert is_loopback(url) is expected


@pytest.mark.parametrize(("users", "expected"), [
    ({}, "127.0.0.1,localhost,::1"),
    ({"NO_PROXY": "intra.example, localhost"}, "intra.example,localhost,127.0.0.1,::1"),
    ({"no_proxy": ".example"}, ".example,127.0.0.1,localhost,::1"),
    ({"no_proxy": "*"}, "*"),
])  # fmt: skip
def test_the_users_exceptions_from_proxies_are_kept(monkeypatch, users, expected):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, users.get(name, ""))
    environment._bypass_proxies_to_this_machine()
    assert {os.environ["no_proxy"], os.environ["NO_PROXY"]} <= {expected, ""}
    assert os.environ["no_proxy"] == expected


@pytest.mark.parametrize(("script", "expected"), [
    ("raise ValueError('x') from OSError('sqlite3.DatabaseError: file is not a database')", "ValueError: x"),
    ("import os; print('Error: database or disk is full'); os._exit(3)", "no space left on the filesystem"),
    ("import time; time.sleep(60)", "no answer in time"),
])  # fmt: skip
def test_a_temporary_server_that_does_not_start_is_one_sentence(monkeypatch, tmp_path, script, expected):
    starts = []

    def command(port: int) -> list[str]:
        starts.append(port)
        return [sys.executable, "-c", script]

    monkeypatch.setattr(process, "_command", command)
    monkeypatch.setattr(TemporaryServer, "_instances", {})
    seconds = 1 if "sleep" in script else 60
    settings = {PREFECT_HOME: str(tmp_path), PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: seconds}
    with temporary_settings(settings, restore_defaults={PREFECT_API_URL}), pytest.raises(EnvironmentProblem) as info:
        check_server()
    assert expected in str(info.value) and "PREFECT_HOME" in str(info.value)
    assert len(starts) == 1, "Prefect's own start repeats this forever"
    assert TemporaryServer._instances == {}


def test_a_home_of_prefect_that_is_a_file_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").touch()
    settings = {PREFECT_HOME: str(tmp_path / "file")}
    with temporary_settings(settings, restore_defaults={PREFECT_API_URL}), pytest.raises(
        EnvironmentProblem, match=r"file is a file, .* set PREFECT_HOME to another folder \(it needs 8.4 MB\)"
    ):  # fmt: skip
        check_server()


@pytest.mark.parametrize(("imports", "level"), [("flows, prefect", "CRITICAL"), ("prefect, flows", "None")])
def test_processes_of_prefect_log_as_they_are_set(imports, level):
    """A worker imports flows when one of its runs crashed; its later flow runs inherit its environment."""
    script = f"import os, {imports}; print(os.environ.get('PREFECT_LOGGING_LEVEL'))"
    unset = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_LOGGING")}
    done = subprocess.run([sys.executable, "-c", script], env=unset, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == level
