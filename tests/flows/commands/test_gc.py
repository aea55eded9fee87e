"""`headrace gc` in stores that real runs made."""

import json

import pytest
from typer.testing import CliRunner

from data_schemas.errors import ConfigError, NotFoundError
from flows.cli import app
from flows.commands.gc import seconds_of
from flows.commands.pin import pin_run
from flows.commands.show import run_json, run_page, runs_json
from flows.commands.verify import verify_store
from flows.runs.request import RunRequest, rerun_request
from flows.runs.session import RunSession
from infra.store.artifacts import ArtifactStore
from infra.store.filesystem import Folder
from infra.store.garbage.gate import GarbageGate
from infra.store.runs import RunStore
from tests.flows.mini import Diary, digests, mini_config, run, run_config, write_corpus


def gc(store: str, *options: str) -> tuple[str, dict]:
    """Run the command; returns what it prints, and its JSON."""
    done = CliRunner().invoke(app, ["gc", "--store", store, "--json", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output, json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "texts")


def test_gc_shows_then_removes_and_the_same_config_makes_it_again(tmp_path, corpus, capsys):
    store, config = str(tmp_path / "store"), mini_config(corpus)
    first, _ = run_config(store, config, last_stage="clean")
    second, _ = run_config(store, config, last_stage="ingest")
    before = digests(store, first.run_id)
    output, shown = gc(store)
    assert "remove them with: headrace gc --apply --older-than 30d" in output
    assert (shown["applied"], shown["artifacts"]) == (False, [])
    assert shown["kinds"]["partitions"]["files"] > 0, "markers, and what only stages themselves read"
    output, removed = gc(store, "--apply")
    assert removed == shown | {"applied": True}
    assert output.startswith("kind ") and "outputs of partitions that are part of no artifact" in output
    assert verify_store(store, None)
    assert gc(store)[1]["files"] == 0
    again, diary = run_config(store, config, last_stage="clean")
    assert set(diary.actions.values()) == {"reuse"}

    pin_run(store, second.run_id)
    _, removed = gc(store, "--apply", "--older-than", "0d")
    assert {name.split("/")[0] for name in removed["artifacts"]} == {"clean"}
    assert verify_store(store, None)
    gone = {row["run_id"]: row["removed"] for row in runs_json(run_page(store, None, None))["runs"]}
    assert gone == {first.run_id: ["clean"], again.run_id: ["clean"], second.run_id: []}
    CliRunner().invoke(app, ["runs", "--store", store])
    output = CliRunner().invoke(app, ["show", first.run_id, "--store", store]).output
    assert output.count("removed by headrace gc") == 1
    assert run_json(store, RunStore(store).get(first.run_id))["removed"] == ["clean"]
    capsys.readouterr()
    pin_run(store, first.run_id)
    assert capsys.readouterr().out.endswith("keeps what it needs; gone already: clean\n")
    with pytest.raises(NotFoundError, match=r"is gone from .*; make it again with: headrace rerun clean --run"):
        run(rerun_request(store, RunStore(store).get(first.run_id), config, "dedup"))
    third, diary = run_config(store, config, last_stage="clean")
    assert diary.actions == {"ingest": "reuse", "clean": "run"}
    assert digests(store, third.run_id) == before


def test_an_unfinished_run_continues_after_gc_with_what_it_had(tmp_path, corpus):
    request = RunRequest(mini_config(corpus), str(tmp_path / "store"), last_stage="clean")
    session = RunSession.begin(request)
    session.execute(session.stages[0])
    key = session.decide(session.stages[1]).key
    session.claim.hold("clean", key)
    marker = f"clean/{key}/parts/clean/of-a-partition.json"
    Folder(request.store_url).write(marker, b"{}")
    for status in (None, "interrupted"):
        if status:
            session.close(status)
        gc(request.store_url, "--apply")
        assert Folder(request.store_url).exists(marker)
    continued, diary = run(request)
    assert continued.run_id == session.run_id
    assert diary.actions == {"ingest": "reuse", "clean": "run"}
    gc(request.store_url, "--apply")
    assert not Folder(request.store_url).exists(marker)
    assert verify_store(request.store_url, None)


@pytest.mark.parametrize("moment", ["before the pin", "while the run waits"])
def test_a_run_does_not_rely_on_an_artifact_that_gc_removes_meanwhile(tmp_path, corpus, monkeypatch, moment):
    """The artifact goes after the run decided to reuse it: it notices, and runs the stage."""
    store, config = str(tmp_path / "store"), mini_config(corpus)
    first, _ = run_config(store, config, last_stage="clean")
    diary = Diary()
    session = RunSession.begin(RunRequest(config, store, last_stage="clean"), diary)
    session.execute(session.stages[0])
    ref = first.artifacts["clean"].ref
    wait = GarbageGate.wait

    def remove(*arguments: object) -> bool:
        monkeypatch.setattr(GarbageGate, "wait", wait)
        if moment == "while the run waits":
            assert RunStore(store).get(session.run_id).stages["clean"].artifact == ref, "pinned before it looks"
        Folder(store).remove(f"clean/{ref.key}/{ref.attempt}/manifest.json")
        return True

    if moment == "before the pin":
        decide = session.decide

        def decide_late(stage: object) -> object:
            decision = decide(stage)
            if decision.action == "reuse":
                remove()
            return decision

        monkeypatch.setattr(session, "decide", decide_late)
    else:
        monkeypatch.setattr(GarbageGate, "wait", remove)
    outcome = session.execute(session.stages[1])
    session.close("finished")
    assert (outcome.action, outcome.artifact.attempt) == ("run", session.run_id)
    assert outcome.artifact.digest == ref.digest
    assert ArtifactStore(store).has(outcome.artifact)


def test_ages_have_a_unit(tmp_path):
    assert [seconds_of(age) for age in ("90m", "12h", "30d", "2w", "0d")] == [5400, 43200, 2592000, 1209600, 0]
    for age in ("30", "d", "-1d", "1.5d", "1y", ""):
        with pytest.raises(ConfigError, match=f"--older-than {age}: expected a number and a unit"):
            seconds_of(age)
    done = CliRunner().invoke(app, ["gc", "--store", str(tmp_path), "--apply"])
    assert (done.exit_code, "is no store of Headrace" in done.output) == (2, True)
    assert list(tmp_path.iterdir()) == []
