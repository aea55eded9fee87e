"""Runs: what is reused, what runs and why, what survives a failure, and the same bytes everywhere."""

import uuid

import pytest

from data_schemas.errors import DamagedArtifactError, EnvironmentProblem
from flows.commands.lineage import find_artifact, lineage_json
from flows.commands.verify import verify_store
from flows.planning.planner import Planner
from flows.runs.request import rerun_request
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore
from stages.clean.stage import CleanStage
from stages.registry import stages_of
from tests.flows.mini import NAMES, digests, mini_config, plan, run, run_config, write_corpus


def test_changing_nothing_runs_nothing(finished):
    store, path, run_id = finished
    session, diary = run_config(store, mini_config(path))
    assert diary.actions == dict.fromkeys(NAMES, "reuse")
    assert session.run_id != run_id
    assert digests(store, session.run_id) == digests(store, run_id)


def test_changing_a_field_runs_that_stage_and_what_depends_on_it_and_says_why(finished):
    store, path, _ = finished
    rows = plan(store, mini_config(path, "pretrain.peak_learning_rate=1e-3", "pretrain.model.width=32"))
    assert [name for name, row in rows.items() if row.action == "run"] == ["pretrain", "compress", "benchmark"]
    assert (
        rows["pretrain"].why
        == "model.width: 16 -> 32; model.feed_forward_width: 64 -> 128; peak_learning_rate: 0.0006 -> 0.001"
    )
    assert rows["compress"].why == "depends on pretrain"
    assert plan(store, mini_config(path, "compress.passes.0.sparsity=0.9"))["compress"].why == (
        "passes.0.sparsity: 0.5 -> 0.9"
    )
    fewer = "compress.passes=[{kind: structured}, {kind: low_rank}, {kind: int8}]"
    assert plan(store, mini_config(path, fewer))["compress"].why == (
        "passes: prune removed; passes: structured added; passes: low_rank added"
    )
    assert rows["benchmark"].why == "depends on compress, pretrain"
    assert rows["pretrain"].estimate.flops > 0


def test_a_change_is_explained_against_the_newest_run_of_the_same_name(finished):
    store, path, _ = finished
    run_config(store, mini_config(path, "name=other", "tokenize.vocabulary_size=420"), last_stage="tokenize")
    rows = plan(store, mini_config(path, "tokenize.vocabulary_size=410"))
    assert rows["tokenize"].why == "vocabulary_size: 400 -> 410"
    rows = plan(store, mini_config(path, "name=third", "tokenize.vocabulary_size=410"))
    assert rows["tokenize"].why == "vocabulary_size: 420 -> 410", "else against the newest run"


def test_fields_that_change_no_bytes_run_nothing(finished):
    store, path, _ = finished
    rows = plan(store, mini_config(path, "pretrain.max_failures=7", "execution.workers=1"))
    assert {row.action for row in rows.values()} == {"reuse"}


def test_a_changed_source_file_runs_ingest_again_but_equal_text_stops_there(tmp_path):
    path = write_corpus(tmp_path / "texts")
    store = str(tmp_path / "store")
    run_config(store, mini_config(path), last_stage="clean")
    write_corpus(tmp_path / "texts")  # the same text, written again
    _, diary = run_config(store, mini_config(path), last_stage="clean")
    assert diary.actions == {"ingest": "run", "clean": "reuse"}


def test_a_failed_run_is_continued_and_keeps_what_it_finished(tmp_path, monkeypatch):
    path = write_corpus(tmp_path / "texts")
    store = str(tmp_path / "store")

    def fail(*_):
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(CleanStage, "run", fail)
        run_config(store, mini_config(path), last_stage="clean")
    broken = RunStore(store).get("latest")
    assert (broken.status, list(broken.stages)) == ("failed", ["ingest"])
    session, diary = run_config(store, mini_config(path), last_stage="clean")
    assert session.run_id == broken.run_id
    assert diary.actions == {"ingest": "reuse", "clean": "run"}
    assert session.record.stages["ingest"].action == "run", "the record keeps what the run did before"


def test_workers_without_room_are_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    store, path = str(tmp_path / "store"), write_corpus(tmp_path / "texts", documents=4)
    config = mini_config(path, "pretrain.workers=9999", "pretrain.micro_batch=1", "pretrain.batch_tokens=319968")
    with pytest.raises(EnvironmentProblem, match=r"workers is 9999 with 1 [CG]PU each"):
        run_config(store, config)
    assert not RunStore(store).all()
    run_config(store, config, last_stage="ingest")
    Planner(ArtifactStore(store), RunStore(store), config, None, None).plan()  # for another machine


def test_a_kept_training_run_goes_on_with_the_same_result(finished, tmp_path, monkeypatch):
    """Stopped after a checkpoint, training ends with the same weights and the same log as without a stop."""
    from stages.pretrain import checkpoints

    _, path, _ = finished
    store = str(tmp_path / "store")
    whole, _ = run_config(store, mini_config(path), last_stage="pretrain")
    marked = checkpoints.mark_complete

    def stop_after_the_second(folder, marker):
        marked(folder, marker)
        if marker.step == 8:
            raise KeyboardInterrupt

    other = str(tmp_path / "other")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "mark_complete", stop_after_the_second)
        run_config(other, mini_config(path), last_stage="pretrain")
    session, _ = run_config(other, mini_config(path), last_stage="pretrain")
    assert digests(other, session.run_id) == digests(store, whole.run_id)
    manifest = session.artifacts["pretrain"].manifest
    assert manifest.metrics["starts"] == [0, 8]
    seconds = (manifest.ended - manifest.started).total_seconds()
    assert 0 <= manifest.metrics["startup_seconds"] <= seconds, "of this start, not of the one that was stopped"
    assert not session.artifacts["pretrain"].folder.exists(f"{session.run_id}/work"), "checkpoints go once committed"


def test_damage_is_found_before_use_and_a_rerun_heals_it(tmp_path, capsys):
    path = write_corpus(tmp_path / "texts")
    store = str(tmp_path / "store")
    session, _ = run_config(store, mini_config(path), last_stage="clean")
    artifact = session.artifacts["ingest"]
    location = artifact.folder.local_path(artifact.location("documents/00000.parquet"))
    whole = location.read_bytes()
    location.write_bytes(whole[:-10])
    with pytest.raises(DamagedArtifactError, match=r"bytes, in the manifest it has .*headrace rerun ingest"):
        run_config(store, mini_config(path), last_stage="clean")
    location.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    assert not verify_store(store, None)
    assert "rebuild it with: headrace rerun ingest --run" in capsys.readouterr().out
    run(rerun_request(store, session.record, mini_config(path), "ingest", only=True, fresh=True))
    assert verify_store(store, None)


def test_same_config_and_input_give_the_same_bytes_on_any_filesystem(finished):
    store, path, run_id = finished
    memory = f"memory://{uuid.uuid4().hex}"
    session, _ = run_config(memory, mini_config(path))
    assert digests(memory, session.run_id) == digests(store, run_id)


def test_lineage_goes_from_the_scores_down_to_the_sources(finished):
    store, path, run_id = finished
    found = lineage_json(store, find_artifact(store, f"{run_id}:benchmark"))
    assert {row["stage"] for row in found["lineage"]} == set(NAMES)
    [ingest] = [row for row in found["lineage"] if row["stage"] == "ingest"]
    assert list(ingest["sources"]) == [path]
    short = find_artifact(store, found["artifact"].rsplit("/", 1)[0])
    assert short.ref.stage == "benchmark"


def test_contracts_hold_between_what_was_written_and_what_is_declared(finished):
    store, _, run_id = finished
    record = RunStore(store).get(run_id)
    for stage in stages_of({}):
        artifact = ArtifactStore(store).open(record.stages[stage.name].artifact)
        artifact.check_contract(stage.output, "the test")
        stage.output.check_files([entry.path for entry in artifact.manifest.files], stage.name)
        for path in artifact.paths("*.parquet") + artifact.paths("*.arrow"):
            stage.output.check_table(path, artifact.read_table(path).schema, stage.name)
