"""A run that reuses every stage does without Prefect and its server, unless somebody could look at it there."""

import json
import sys
from collections.abc import Iterator

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED, temporary_settings
from typer.testing import CliRunner

from flows.cli import app
from flows.reused_run import can_do_without_engine, has_finished, reuse_all
from flows.runs.artifacts import report_location
from flows.runs.request import RunRequest
from flows.runs.start import RunStart
from infra.store.runs import RunStore
from tests.flows.mini import Diary, mini_config, mini_values, run, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    return write_corpus(tmp_path_factory.mktemp("texts"), documents=8)


@pytest.fixture
def here() -> Iterator[None]:
    """Nobody has configured a server."""
    with temporary_settings({PREFECT_API_URL: None, PREFECT_SERVER_EPHEMERAL_ENABLED: True}):
        yield


@pytest.fixture
def of(corpus, tmp_path) -> RunRequest:
    return RunRequest(mini_config(corpus), str(tmp_path / "store"), last_stage="clean")


def test_the_command_reuses_all_without_prefect_and_starts_the_engine_where_a_stage_runs(
    of, corpus, tmp_path, monkeypatch, here
):
    first, _ = run(of)
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(mini_values(corpus)))
    launched: list[str] = []
    monkeypatch.setattr("flows.prefect_server.process.launch", lambda: launched.append("server"))
    for module in ("flows.pipeline", "flows.prefect_server.connection"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it raises
    command = ["run", str(tmp_path / "mini.yaml"), "--store", of.store_url, "--until", "clean", "--json"]

    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    shown = json.loads(done.output.splitlines()[-1])
    assert {row["action"] for row in shown["stages"]} == {"reuse"} and launched == []
    record = RunStore(of.store_url).get("latest")
    assert (record.run_id, record.status) == (shown["run_id"], "finished") and record.run_id != first.run_id
    assert report_location(of.store_url, record) is not None

    done = CliRunner().invoke(app, [*command, "--set", "clean.languages=[en]"])
    assert launched[0] == "server" and "import of flows.pipeline halted" in str(done.output) + str(done.stderr)


def test_an_artifact_that_is_gone_since_the_plan_leaves_the_run_for_the_engine(of, here):
    first, _ = run(of)
    start = RunStart.of(of)
    assert start.reuses_all and has_finished(of) and can_do_without_engine(of, start)
    first.artifacts["clean"].folder.remove(first.run_id)
    assert reuse_all(of, Diary(), start) is None
    assert not has_finished(of) and not RunStart.of(of).reuses_all
    left = RunStore(of.store_url).get("latest")
    again, diary = run(of)
    assert again.run_id == left.run_id != first.run_id and diary.actions == {"ingest": "reuse", "clean": "run"}
    assert RunStore(of.store_url).get("latest").status == "finished"


@pytest.mark.parametrize("settings", [
    {PREFECT_API_URL: "http://127.0.0.1:9/api"}, {PREFECT_SERVER_EPHEMERAL_ENABLED: False},
])  # fmt: skip
def test_a_run_that_others_can_see_stays_one_of_the_engine(settings, of, here):
    start = RunStart({}, [], {})
    assert start.reuses_all and can_do_without_engine(of, start)
    with temporary_settings(settings):
        assert not can_do_without_engine(of, start)
    execution = of.config.execution.model_copy(update={"metrics_port": 0})
    seen = RunRequest(of.config.model_copy(update={"execution": execution}), of.store_url)
    assert not can_do_without_engine(seen, start)


def test_a_store_that_cannot_tell_is_no_error_yet(of, tmp_path):
    assert not has_finished(of)
    (tmp_path / "store").write_text("no folder")
    assert not has_finished(of)
