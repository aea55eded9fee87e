"""A run with the optional stage synthesize: switching it on and off, `why`, `lineage` and the report."""

import json
from pathlib import Path

import pytest

from data_schemas.errors import ConfigError, NotFoundError
from flows.commands.lineage import find_artifact, lineage_tree, synthetic_document
from flows.commands.synthetic_records import document_lineage
from flows.commands.why import as_json, fates
from flows.console import console
from flows.report.build import write_report
from flows.run_config import recorded_config
from flows.run_request import rerun_request
from infra.store.runs import RunStore
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
    with_it = recorded_config(plain, ["synthesize={}"])
    with pytest.raises(ConfigError, match=f"headrace rerun synthesize --run {plain.run_id} --set synthesize=..."):
        rerun_request(store, plain, with_it, "tokenize")
    with pytest.raises(ConfigError, match="synthesize is optional"):
        rerun_request(store, plain, recorded_config(plain), "synthesize")
    assert rerun_request(store, plain, with_it, "synthesize").planned[0].name == "synthesize"


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
    for part in ("engine headrace", "seed", "passed", "file part-", "source method swap headrace 1 (Unicode"):
        assert part in capture.get(), part
    assert synthetic_document(store, f"{session.run_id}:dedup") is None
    with pytest.raises(NotFoundError, match="has no synthetic document 'x~swap'"):
        synthetic_document(store, f"{session.run_id}:x~swap")


def test_the_report_shows_shares_gates_and_what_is_missing(finished):
    store, _, _, session, _ = finished
    page = Path(write_report(store, session.record)).read_text()
    assert "Synthetic documents" in page and "too near parent" in page and "deletion" in page
