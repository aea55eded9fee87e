"""The temporary server that starts beside the imports of a command, and ends with it."""

import json
import os
import subprocess
import sys

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED, temporary_settings

from flows.prefect_server import process
from tests.processes import is_gone, living

STUBBED = """
import json, subprocess, sys
from types import SimpleNamespace
from flows.prefect_server import process
from tests.processes import is_gone, living
from flows.commands.panels.run import _execute
sleep = "import os, time; os.close(1); time.sleep(600)"
process._command = lambda port: [sys.executable, "-c", sleep]
start = process.ServerProcess.start

def started():
    server = start()
    print(json.dumps([server.process.pid, sorted(sys.modules)]), flush=True)
    sys.modules["flows.pipeline"] = None  # its import ends the command, with the server unused
    return server

process.ServerProcess.start = started
submitted = SimpleNamespace(execution=SimpleNamespace(submit="stage"))
_execute(SimpleNamespace(check_usable=lambda: None, store_url="memory://s", config=submitted, stages=[]), False)
"""


def test_the_server_starts_before_what_takes_long_to_import_and_ends_with_a_command_that_fails(tmp_path):
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    environment.pop("PREFECT_API_URL", None)
    done = subprocess.run([sys.executable, "-c", STUBBED], env=environment, capture_output=True, text=True, check=False)
    assert "import of flows.pipeline halted" in done.stderr, done.stderr
    pid, modules = json.loads(done.stdout)
    assert not {"prefect", "prefect.server.api.server", "flows.pipeline", "matplotlib", "torch", "ray"} & set(modules)
    assert all(map(is_gone, living([pid])))


@pytest.mark.parametrize("settings", [
    {PREFECT_API_URL: "http://127.0.0.1:9/api"}, {PREFECT_SERVER_EPHEMERAL_ENABLED: False},
])  # fmt: skip
def test_no_server_starts_if_one_is_configured_or_none_is_allowed(settings, monkeypatch):
    monkeypatch.setattr(process, "_command", lambda port: pytest.fail("a server was started"))
    with temporary_settings(settings):
        process.launch()


@pytest.mark.parametrize(("variables", "files", "expected"), [
    ({}, {}, False), ({"PREFECT_SERVER_ANALYTICS_ENABLED": "true"}, {"pyproject.toml": "[tool.ruff]"}, False),
    ({"prefect_api_url": "http://127.0.0.1:9/api"}, {}, True), ({"PREFECT_PROFILE": "team"}, {}, True),
    ({}, {".env": ""}, True), ({}, {"prefect.toml": ""}, True), ({}, {"home/profiles.toml": ""}, True),
    ({}, {"pyproject.toml": "[tool.prefect.api]"}, True), ({"PREFECT_HOME": "~nobody-here/prefect"}, {}, False),
    ({"PREFECT_HOME": "/too long" * 1000}, {}, False),
])  # fmt: skip
def test_prefect_is_asked_for_its_settings_where_a_user_may_have_some(
    variables, files, expected, tmp_path, monkeypatch
):
    for name in list(os.environ):
        if name.upper().startswith("PREFECT"):
            monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for name, value in {"PREFECT_HOME": str(tmp_path / "home"), **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert process._may_be_configured() is expected
