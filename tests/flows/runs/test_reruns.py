"""Reruns: on the artifacts of their run, followed where bytes changed."""

import errno
import shutil

import pytest

from data_schemas.errors import ConfigError, NotFoundError
from flows.commands.verify import verify_store
from flows.config.run_config import recorded_config
from flows.runs.request import following_request, rerun_request
from flows.runs.session import RunSession
from infra.store.claims import FencedFolder
from infra.store.runs import RunStore
from stages.clean.stage import CleanStage
from stages.ingest.stage import IngestStage
from tests.flows.mini import NAMES, digests, interrupt, mini_config, plan, run, run_config, write_corpus


def test_a_forced_rerun_is_followed_only_where_bytes_changed(finished):
    store, path, run_id = finished
    base = RunStore(store).get(run_id)
    _, diary = run(rerun_request(store, base, mini_config(path), "compress", only=False, fresh=False))
    assert diary.actions == {**dict.fromkeys(NAMES, "reuse"), "compress": "run"}, "equal bytes: benchmark is reused"

    other = mini_config(path, "compress.passes.0.sparsity=0.9")
    rows = plan(store, other, base, "compress")
    assert rows["compress"].why == "forced by rerun"
    session, diary = run(rerun_request(store, base, other, "compress", only=False, fresh=False))
    assert diary.actions == {**dict.fromkeys(NAMES, "reuse"), "compress": "run", "benchmark": "run"}
    assert digests(store, session.run_id)["pretrain"] == digests(store, run_id)["pretrain"]

    _, diary = run(rerun_request(store, base, mini_config(path, "compress.seed=5"), "compress", only=True, fresh=False))
    assert list(diary.actions) == NAMES[:-1]


def test_a_rerun_needs_what_comes_before(finished):
    store, path, _ = finished
    short, _ = run_config(store, mini_config(path), last_stage="clean")
    with pytest.raises(ConfigError, match=r"has no dedup artifact.*headrace rerun dedup --run"):
        rerun_request(store, short.record, mini_config(path), "compress", only=False, fresh=False)


@pytest.mark.parametrize("change", ["added", "deleted", "rewritten", "store copied"])
def test_a_rerun_uses_the_inputs_of_its_run_whatever_happened_to_the_sources(tmp_path, change):
    path = write_corpus(tmp_path / "texts")
    store = str(tmp_path / "store")
    session, _ = run_config(store, mini_config(path), last_stage="tokenize")
    if change == "added":
        (tmp_path / "texts" / "more.jsonl").write_text('{"text": "Another text."}')
    elif change == "rewritten":
        write_corpus(tmp_path / "texts", documents=20)
    else:
        shutil.rmtree(tmp_path / "texts")
    if change == "store copied":
        shutil.move(store, tmp_path / "copy")
        store = str(tmp_path / "copy")
    base = RunStore(store).get(session.run_id)

    again, diary = run(rerun_request(store, base, recorded_config(base), "clean"))
    assert diary.actions == {"ingest": "reuse", "clean": "run", "dedup": "reuse", "tokenize": "reuse"}
    assert again.record.stages["ingest"].why == f"taken from run {base.run_id}"
    assert digests(store, again.run_id) == digests(store, base.run_id)

    again, diary = run(rerun_request(store, base, recorded_config(base), "clean", onwards=True))
    assert diary.actions == {"ingest": "reuse", "clean": "run", "dedup": "run", "tokenize": "run"}
    again, diary = run(rerun_request(store, again.record, recorded_config(base), "dedup", only=True))
    assert diary.actions == {"ingest": "reuse", "clean": "reuse", "dedup": "run"}


def test_a_rerun_of_a_stage_after_the_last_of_its_run_runs_it_on_the_artifacts_of_the_run(tmp_path):
    path = write_corpus(tmp_path / "texts")
    store = str(tmp_path / "store")
    base = run_config(store, mini_config(path), last_stage="dedup")[0].record
    config = mini_config(path, "tokenize.vocabulary_size=420")
    session, diary = run(rerun_request(store, base, config, "tokenize"))
    assert diary.actions == {"ingest": "reuse", "clean": "reuse", "dedup": "reuse", "tokenize": "run"}
    assert session.artifacts["tokenize"].manifest.inputs["corpus"] == base.stages["dedup"].artifact


def test_a_rerun_needs_only_the_artifacts_that_it_reads_and_says_how_to_make_them_again(tmp_path):
    path = write_corpus(tmp_path / "texts")
    store = str(tmp_path / "store")
    config = mini_config(path)
    base = run_config(store, config, last_stage="tokenize")[0].record
    shutil.rmtree(tmp_path / "store" / "ingest")
    again = run(rerun_request(store, base, config, "dedup"))[0].record
    assert digests(store, again.run_id) == digests(store, base.run_id)
    shutil.rmtree(tmp_path / "store" / "dedup" / base.stages["dedup"].artifact.key / base.run_id)
    session, _ = run(rerun_request(store, base, config, "tokenize"))
    assert session.artifacts["dedup"].ref == again.stages["dedup"].artifact, "another attempt with the same bytes"
    shutil.rmtree(tmp_path / "store" / "dedup")
    records = len(RunStore(store).all())
    with pytest.raises(NotFoundError, match=rf"which tokenize needs.*headrace rerun dedup --run {base.run_id}$"):
        run(rerun_request(store, base, config, "tokenize"))
    assert len(RunStore(store).all()) == records, "nothing was started"
    run(rerun_request(store, base, config, "dedup"))
    run(rerun_request(store, base, config, "tokenize"))


def test_a_rerun_refuses_settings_of_the_stages_that_it_takes(finished):
    store, path, run_id = finished
    base = RunStore(store).get(run_id)
    config = mini_config(path, "pretrain.tokens=4096")
    for request in (rerun_request, following_request):
        with pytest.raises(
            ConfigError, match=rf"pretrain.tokens: 8192 -> 4096 changes a stage.*headrace rerun pretrain --run {run_id}"
        ):
            request(store, base, config, "compress")
    rerun_request(store, base, mini_config(path, "pretrain.max_failures=7"), "compress")


def test_an_interrupted_rerun_is_continued_as_what_it_was(tmp_path, monkeypatch):
    path = write_corpus(tmp_path / "texts")
    store, config = str(tmp_path / "store"), mini_config(path)
    base = run_config(store, config, last_stage="dedup")[0].record
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CleanStage, "run", interrupt)
        run(rerun_request(store, base, config, "clean", onwards=True))
    interrupted = RunStore(store).get("latest")
    shutil.rmtree(tmp_path / "texts")
    other, _ = run(rerun_request(store, base, config, "clean"))
    assert other.run_id != interrupted.run_id, "it forces clean only"
    again, diary = run(rerun_request(store, base, config, "clean", onwards=True))
    assert again.run_id == interrupted.run_id
    assert diary.actions == {"ingest": "reuse", "clean": "run", "dedup": "run"}


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_stage_whose_manifest_is_written_is_not_run_again(tmp_path, monkeypatch, is_killed):
    """Stopped, or failed for a moment, between the manifest and the record: a rerun would train for hours again."""
    store, config = str(tmp_path / "store"), mini_config(write_corpus(tmp_path / "texts"))
    request = rerun_request(store, run_config(store, config, last_stage="ingest")[0].record, config, "ingest")
    session, calls, run_stage = RunSession.begin(request), [], IngestStage.run

    def counted(stage, *arguments):
        calls.append(stage)
        run_stage(stage, *arguments)

    def fail(folder, name=""):
        raise KeyboardInterrupt if is_killed else OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(IngestStage, "run", counted)
    [ingest] = session.stages
    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, OSError)):
        patch.setattr(FencedFolder, "remove", fail)
        session.execute(ingest)
    if is_killed:
        session.close("interrupted")
        session, run_id = RunSession.begin(request), session.run_id
        assert session.run_id == run_id
    outcome = session.execute(ingest)
    assert (len(calls), outcome.artifact.attempt, outcome.action) == (1, session.run_id, "reuse")
    session.close("finished")
    assert verify_store(store, None)
