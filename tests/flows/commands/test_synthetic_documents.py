"""A run with the optional stage synthesize: switching it on and off, `why`, `lineage` and the report."""

import json
from pathlib import Path

import pytest

from data_schemas.errors import ConfigError, EnvironmentProblem, NotFoundError
from flows.commands.lineage import find_artifact, lineage_tree, synthetic_document
from flows.commands.synthetic_records import document_lineage
from flows.commands.why import as_json, fates
from flows.config.run_config import recorded_config
from flows.console import console
from flows.report.build import write_report
from flows.runs.request import rerun_request
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore
from stages.synthesize.engines.chat_server import ChatServer
from stages.synthesize.engines.endpoint import CHECK_TEXT
from tests.flows.mini import mini_config, run, run_config, write_corpus
from tests.stages.synthesize.fakes import rows, verdicts

ON = ("synthesize.gates.max_nearness=0.5", "synthesize.seed=1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(store, path of the corpus, actions without the stage, session with it, its actions)."""
    folder = tmp_path_factory.mktemp("synthetic")
    path, store = write_corpus(folder / "texts"), f"{folder}/store"
    _, before = run_config(store, mini_config(path, "ingest.partition_bytes=1_000_000"), last_stage="tokenize")
    config = mini_config(path, "ingest.partition_bytes=1_000_000", *ON)
    session, diary = run_config(store, config, last_stage="tokenize")
    return store, path, before.actions, session, diary.actions


def test_the_stage_is_switched_on_and_off_without_running_the_others_again(finished):
    store, path, before, session, after = finished
    assert "synthesize" not in before and "profile" not in before
    assert after == {"ingest": "reuse", "clean": "reuse", "dedup": "reuse", "synthesize": "run", "tokenize": "run"}
    manifest = session.artifacts["tokenize"].manifest
    assert manifest.inputs["corpus"] == session.artifacts["synthesize"].ref
    held_out = [rows(session.artifacts[stage], "held_out") for stage in ("dedup", "synthesize")]
    assert held_out[0] == held_out[1] and len(held_out[0]) == manifest.counts["held_out_documents"]
    config = mini_config(path, "ingest.partition_bytes=1_000_000", *ON, "synthesize=null")
    assert set(run_config(store, config, last_stage="tokenize")[1].actions.values()) == {"reuse"}


def test_a_rerun_may_drop_the_stage_and_names_the_stage_that_adds_it(finished):
    store, _, _, session, _ = finished
    base = session.record
    without = recorded_config(base, ["synthesize=null"])
    assert run(rerun_request(store, base, without, "tokenize"))[0].record.stages.keys() == {
        "ingest", "clean", "dedup", "tokenize",
    }  # fmt: skip
    plain = RunStore(store).all()[-1]
    until_there = base.model_copy(update={"last_stage": "synthesize"})
    assert rerun_request(store, until_there, without, "dedup").last_stage == "dedup", "it is switched off"
    with_it = recorded_config(plain, ["synthesize={}"])
    with pytest.raises(ConfigError, match=f"headrace rerun synthesize --run {plain.run_id} --set synthesize=..."):
        rerun_request(store, plain, with_it, "tokenize")
    with pytest.raises(ConfigError, match="synthesize is optional"):
        rerun_request(store, plain, recorded_config(plain), "synthesize")
    assert rerun_request(store, plain, with_it, "synthesize").planned[0].name == "synthesize"


def test_a_checkpoint_is_looked_up_in_the_store_of_the_run(finished):
    store, path, _, session, _ = finished
    setting = f"synthesize.methods=[{{kind: checkpoint, run: {session.run_id}}}]"
    for folder in (store, f"{store}-fresh"):  # before the stages before it have run, too
        message = "no model of stage 'pretrain'" if folder == store else f"no run '{session.run_id}'"
        with pytest.raises(NotFoundError, match=message):
            run_config(folder, mini_config(path, setting), last_stage="tokenize")


def test_an_endpoint_that_dies_midway_loses_nothing_and_leaves_no_result(tmp_path, monkeypatch):
    """The run ends with one sentence; continued, it asks for the rest alone, and has what it would have had."""
    monkeypatch.setattr("stages.synthesize.generation.COMMIT_SECONDS", 0.0)
    path, requests, limit = write_corpus(tmp_path / "texts", 16), list[str](), [5]

    def answer(self, body):
        text = body["messages"][-1]["content"]
        if text != CHECK_TEXT:
            requests.append(text)
        if len(requests) > limit[0]:
            raise ConnectionRefusedError
        content = " ".join(text.split(" ")[::-1])
        return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}).encode()

    monkeypatch.setattr(ChatServer, "_post", answer)
    method = "{kind: endpoint, model: m, share: 1, concurrency: 1, tries: 1}"
    gates = "synthesize.gates={max_changed_numbers: null, max_changed_names: null, clean_rules: false, near: null}"
    settings = (f"synthesize.methods=[{method}]", gates, "synthesize.batch_documents=1")
    config, store = mini_config(path, *settings), f"{tmp_path}/store"
    with pytest.raises(EnvironmentProblem, match="endpoint localhost:8000 cannot be reached; start the server"):
        run_config(store, config, last_stage="synthesize")
    [failed] = RunStore(store).all()
    assert "synthesize" not in failed.stages and ArtifactStore(store).all("synthesize") == []
    answered = requests[:5]
    limit[0] = 10**6
    requests.clear()
    session, diary = run_config(store, config, last_stage="synthesize")
    assert session.run_id == failed.run_id and diary.actions["dedup"] == "reuse"
    assert not {*answered} & {*requests}, "no text is asked for twice"
    whole, _ = run_config(f"{store}-whole", config, last_stage="synthesize")
    continued, at_once = (each.artifacts["synthesize"] for each in (session, whole))
    assert continued.manifest.digest == at_once.manifest.digest and "kept" in verdicts(continued).values()


def test_why_reaches_from_a_synthetic_document_to_its_parent_and_back(finished):
    store, _, _, session, _ = finished
    found = verdicts(session.artifacts["synthesize"])
    kept = next(name for name, verdict in found.items() if verdict == "kept")
    parent = kept.rpartition("~")[0]
    steps = fates(store, session.record, kept)
    assert [(fate.stage, fate.document) for fate in steps] == [
        ("ingest", parent), ("clean", parent), ("dedup", parent), ("synthesize", ""), ("tokenize", ""),
    ]  # fmt: skip
    assert f"made of {parent} by" in steps[3].sentence and "passed clean rules" in steps[3].sentence
    json.dumps(as_json(kept, session.record, steps))
    assert f"{kept} (kept)" in fates(store, session.record, parent)[3].sentence
    refused = next(name for name, verdict in found.items() if verdict == "too_near_parent")
    steps = fates(store, session.record, refused)
    assert not steps[-1].kept and "refused by too near parent" in steps[-1].sentence


def test_lineage_reaches_from_a_synthetic_document_through_its_record_to_the_source(finished):
    store, _, _, session, _ = finished
    name = next(iter(verdicts(session.artifacts["synthesize"])))
    found = synthetic_document(store, f"{session.run_id}:{name}")
    assert found is not None
    with console.capture() as capture:
        console.print(document_lineage(*found))
        console.print(lineage_tree(store, find_artifact(store, f"{session.run_id}:synthesize")))
    for part in ("engine headrace", "seed", "passed", "file part-", "source method swap headrace 2 (Unicode"):
        assert part in capture.get(), part
    assert synthetic_document(store, f"{session.run_id}:dedup") is None
    unknown = f"{name.rpartition('~')[0]}~casing"
    with pytest.raises(NotFoundError, match=f"has no synthetic document '{unknown}'; .* PARENT~METHOD, such as {name}"):
        synthetic_document(store, f"{session.run_id}:{unknown}")
    with pytest.raises(NotFoundError, match=f"no document 'x~swap' in run .* such as {name}"):
        fates(store, session.record, "x~swap")


def test_the_report_shows_shares_gates_and_what_is_missing(finished):
    store, _, _, session, _ = finished
    page = Path(write_report(store, session.record)).read_text()
    assert "Synthetic documents" in page and "too near parent" in page and "deletion" in page
