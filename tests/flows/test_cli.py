"""The help that a person reads: panels, one line and an example per command, quick to start, with completion."""

import socket
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.panels import command
from stages.registry import STAGES

PANELS = {
    "Plan": ["plan", "calibrate", "calibration", "doctor"],
    "Run": ["run", "rerun", "params", "sweep"],
    "Cluster": ["submit", "attach", "logs", "cancel"],
    "Inspect": ["show", "watch", "compare", "profile", "why", "lineage", "report"],
    "Model": ["generate", "evaluate", "export"],
    "Store": ["runs", "pin", "unpin", "gc", "verify"],
}


def printed(*arguments: str, columns: int = 80) -> str:
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, arguments).stdout


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_the_help_shows_every_command_in_its_panel_on_one_line(arguments):
    lines = [line.strip("│ ") for line in printed(*arguments).splitlines()]
    title = None
    shown: dict[str, list[str]] = {panel: [] for panel in PANELS}
    for line in lines:
        if line.startswith("╭─"):
            title = line.strip("╭─╮ ")
        elif line.startswith("╰"):
            title = None
        elif title in PANELS:
            shown[title].append(line.split()[0])
    assert shown == PANELS


@pytest.mark.parametrize("name", [name for names in PANELS.values() for name in names])
def test_each_command_has_an_example_that_names_it(name):
    assert f"headrace {name}" in printed(name, "--help").split("Example")[-1]


def test_all_commands_are_in_a_panel():
    assert list(get_command(app).commands) == [name for names in PANELS.values() for name in names]


def test_the_help_needs_no_heavy_import():
    script = (
        "import sys; from typer.testing import CliRunner; from flows.cli import app;"
        "CliRunner().invoke(app, ['--help']);"
        "print(*sorted({'torch', 'ray', 'prefect', 'pyarrow', 'pydantic', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_stages_and_runs_are_completed(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quiet-otter-3f9a.json").touch()
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    assert command.complete_runs("") == ["latest", "quiet-otter-3f9a"]
    assert command.complete_runs("qu") == ["quiet-otter-3f9a"]
    monkeypatch.setenv("HEADRACE_HOME", "memory://elsewhere")
    assert command.complete_runs("") == ["latest"]
    assert command.complete_stages("") == sorted(stage.name for stage in STAGES)
    assert command.complete_stages("pre") == ["pretrain"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--on", "ray"], "is on this machine only, and a Ray cluster that jobs are submitted to"),
        (["--set", "execution.submit=run", "--set", "execution.shared_filesystem=true"], "cannot reach the Ray"),
        (["--set", "execution.engine=ray"], "is on this machine only, and the nodes of the Ray cluster"),
        (["--set", "execution.engine=ray", "--set", "execution.shared_filesystem=true"], "cannot join the Ray cluster"),
    ],
)
def test_a_store_or_cluster_that_cannot_be_used_is_refused_before_the_flow_engine(
    tmp_path, monkeypatch, arguments, expected
):
    (tmp_path / "mini.yaml").write_text("name: mini\n")
    with socket.socket() as silent:  # bound, not listening: connections are refused
        silent.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("flows.prefect_server.process.launch", lambda: None)
        for module in ("flows.pipeline", "prefect.flows"):
            monkeypatch.setitem(sys.modules, module, None)  # importing it raises
        store = ["--store", str(tmp_path / "store")]
        result = CliRunner().invoke(app, ["run", str(tmp_path / "mini.yaml"), *store, *arguments])
    assert result.exit_code == 2, result.output
    assert expected in result.output + result.stderr
