"""Every way to rerun a stage, by the command line, as a deployment and as jobs on a cluster, gives the same run."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from typer.testing import CliRunner

from flows import stage_flows
from flows.cli import app
from flows.commands.panels import run as commands
from flows.jobs.submitted import begin_session
from flows.runs.request import RunRequest
from infra.store.runs import RunStore
from tests.flows.jobs.in_process import use_cluster
from tests.flows.mini import Diary, digests, mini_config, run, run_config, write_corpus


@dataclass(frozen=True)
class Cell:
    """A rerun of `clean` in a run up to `dedup`."""

    options: tuple[str, ...]
    """Of `headrace rerun`."""
    parameters: dict[str, Any]
    """Of the deployment."""
    actions: dict[str, str]


CELLS = {
    "only": Cell(("clean", "--only"), {"stage": "clean", "only": True}, {"ingest": "reuse", "clean": "run"}),
    "from": Cell(
        ("--from", "clean"), {"stage": "clean", "onwards": True}, {"ingest": "reuse", "clean": "run", "dedup": "run"}
    ),
    "until": Cell(
        ("ingest", "--until", "clean"), {"stage": "ingest", "until": "clean"}, {"ingest": "run", "clean": "reuse"}
    ),
    "set": Cell(
        ("clean", "--set", "clean.rules.gopher_words.min=200"),
        {"stage": "clean", "set": ["clean.rules.gopher_words.min=200"]},
        {"ingest": "reuse", "clean": "run", "dedup": "run"},
    ),
}
"""By the option that decides."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run in a store of its own."""
    folder = tmp_path_factory.mktemp("matrix")
    corpus = write_corpus(folder / "texts", documents=20)
    return run_config(str(folder / "store"), mini_config(corpus), last_stage="dedup")[0]


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_rerun_is_the_same_by_every_way(base, monkeypatch, cell):
    store = base.request.store_url
    requests: list[RunRequest] = []
    monkeypatch.setattr(commands, "_execute", lambda request, as_json: requests.append(request))
    monkeypatch.setattr(stage_flows, "run_deployed", requests.append)
    for options in ([], ["--on", "ray", "--set", "execution.shared_filesystem=true"]):
        done = CliRunner().invoke(app, ["rerun", *cell.options, *options, "--run", base.run_id, "--store", store])
        assert done.exit_code == 0, done.output
    stage_flows.rerun.fn(**cell.parameters, run=base.run_id, store=store)
    here, submitted, deployed = requests
    assert here == deployed
    assert submitted == replace(here, config=submitted.config)
    assert submitted.config_digest == here.config_digest and submitted.config.execution.submit == "stage"

    session, diary = run(here)
    assert diary.actions == cell.actions
    expected = digests(store, session.run_id)
    use_cluster(monkeypatch, store)
    diary = Diary()
    again = run_by_jobs(replace(submitted, fresh=True), diary)
    assert (list(diary.actions), digests(store, again)) == (list(cell.actions), expected)
    assert RunStore(store).get(again).forced == cell.parameters["stage"]


def run_by_jobs(request: RunRequest, view: Diary) -> str:
    """Id of a run whose stages are jobs."""
    session = begin_session(request, view)
    with session.closing():
        for stage in session.stages:
            session.execute(stage)
    return session.run_id
