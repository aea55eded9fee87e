import errno
import json
import shutil
import uuid
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from data_schemas.errors import ConfigError, DamagedArtifactError, EnvironmentProblem, NotFoundError
from data_schemas.manifest import RunRecord
from flows.commands.lineage import find_artifact, lineage_json
from flows.commands.verify import verify_store
from flows.config.run_config import recorded_config
from flows.planning.planner import Planner
from flows.runs.request import following_request, rerun_request
from flows.runs.session import RunSession
from infra.precision import Gpu, Processor
from infra.store import provenance
from infra.store.artifacts import ArtifactStore
from infra.store.claims import FencedFolder
from infra.store.runs import RunStore
from stages.benchmark.config import BenchmarkConfig
from stages.clean import partition
from stages.clean.stage import CleanStage
from stages.ingest.stage import IngestStage
from stages.registry import stages_of
from tests.flows.mini import digests, mini_config, run, run_config, write_corpus
from tests.infra.store.run_records import run_record

NAMES = [stage.name for stage in stages_of({})]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(store, corpus path, run id) of a finished run; tests add runs to the store but change no artifact."""
    folder = tmp_path_factory.mktemp("finished")
    path = write_corpus(folder / "texts")
    session, diary = run_config(f"{folder}/store", mini_config(path))
    assert diary.actions == dict.fromkeys(NAMES, "run")
    return f"{folder}/store", path, session.run_id


def plan(store, config, base=None, forced=None):
    planner = Planner(ArtifactStore(store), RunStore(store), config, None, base)
    return {row.stage.name: row for row in planner.plan([forced] if forced else [])}


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


def interrupt(*_):
    raise KeyboardInterrupt


def test_what_auto_becomes_is_decided_before_the_key_and_kept_by_a_run_that_continues(finished, tmp_path, monkeypatch):
    store, path, _ = finished
    automatic = mini_config(path, "pretrain.precision=auto")
    machine = "infra.hardware.has_fast_bf16"
    monkeypatch.setattr(machine, lambda: False)
    base, diary = run_config(store, automatic, last_stage="compress")
    assert diary.actions["pretrain"] == "reuse", "fp32 by choice and fp32 by the machine are the same"
    assert base.artifacts["compress"].manifest.config["precision"] == "fp32"
    rounded = mini_config(path, 'compress.passes=[{"kind": "int8"}]')
    assert rounded.compress.resolved(lambda devices: "bf16").key_fields() == rounded.compress.key_fields()

    other = str(tmp_path / "other")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CleanStage, "run", interrupt)
        run_config(other, automatic, last_stage="pretrain")
    monkeypatch.setattr(machine, lambda: True)
    rows = plan(store, automatic)
    assert rows["pretrain"].why == "precision: fp32 -> bf16"
    assert "precision: fp32 -> bf16" in rows["compress"].why
    session, diary = run_config(other, automatic, last_stage="pretrain")
    assert session.artifacts["pretrain"].manifest.metrics["precision"] == "fp32", "the run began on another machine"
    session, _ = run_config(other, automatic, last_stage="pretrain")
    assert session.artifacts["pretrain"].manifest.metrics["precision"] == "bf16"


def test_each_stage_is_keyed_by_the_precision_of_the_devices_that_compute_it(finished, monkeypatch):
    """Pretraining on the cluster's GPUs, recoveries on the processor here; a plan without either asks nobody."""
    store, path, _ = finished
    asked = []
    devices = {"workers": [Gpu("V100", 7)], "device": [Gpu("A100", 8)], "processor": [Processor(False)]}
    monkeypatch.setattr("infra.precision.devices_of", lambda on: asked.append(on) or devices[on])
    config = mini_config(path, "pretrain.precision=auto", "pretrain.workers=2")
    planner = Planner(ArtifactStore(store), RunStore(store), config, None, None)
    assert planner.plan(last_stage="tokenize") and asked == []
    rows = {row.stage.name: row for row in planner.plan()}
    assert (rows["pretrain"].config.precision, rows["compress"].config.precision) == ("fp16", "fp32")
    assert rows["pretrain"].why == "precision: fp32 -> fp16"
    assert planner.precision.known == {"workers": "fp16", "processor": "fp32"}
    here = mini_config(path, "pretrain.precision=auto", "pretrain.workers=0")
    rows = plan(store, here)
    assert rows["pretrain"].why == "precision: fp32 -> bf16"
    asked.clear()
    chosen = mini_config(path, "pretrain.workers=2", "pretrain.precision=tf32", "compress.precision=fp32")
    assert plan(store, chosen)["pretrain"].why == "precision: fp32 -> tf32" and asked == []


def test_a_record_of_an_earlier_version_has_one_precision_for_all_devices():
    fields = run_record("quiet-otter-0001").model_dump(mode="json") | {"run_record_version": 2}
    for value, expected in ((None, {}), ("bf16", {"processor": "bf16", "device": "bf16", "workers": "bf16"})):
        assert RunRecord.model_validate(fields | {"precision": value}).precision == expected


def test_a_task_that_trains_is_keyed_by_its_precision():
    config = BenchmarkConfig.model_validate(
        {"tasks": [{"kind": "glue_fine_tuned", "path": "absent", "sets": ["RTE"]}, {"kind": "winograd"}]}
    )
    bf16, fp32 = (config.resolved(lambda devices, found=found: found) for found in ("bf16", "fp32"))
    assert bf16.tasks[0].precision == "bf16" and bf16.key_fields() != fp32.key_fields()
    assert bf16.tasks[1] == fp32.tasks[1]


@pytest.fixture
def installed(monkeypatch):
    """Package -> version that differs from the installed one."""
    versions, version = {}, metadata.version
    monkeypatch.setattr("infra.store.provenance.metadata.version", lambda name: versions.get(name) or version(name))
    return versions


def test_another_version_of_a_declared_package_means_run_and_says_so(finished, installed):
    store, path, _ = finished
    config, tokenizers = mini_config(path), metadata.version("tokenizers")
    installed |= {"tokenizers": "99.1", "ray": "99.1", "matplotlib": "99.1"}
    rows = plan(store, config)
    assert [name for name in NAMES if rows[name].action == "run"] == NAMES[NAMES.index("tokenize") :]
    assert rows["tokenize"].why == f"tokenizers {tokenizers} -> 99.1"
    kept = Planner(ArtifactStore(store), RunStore(store), config, None, None, keep_versions=True).plan()
    assert {row.action for row in kept} == {"reuse"}
    installed |= {"tokenizers": f"{tokenizers}+local", "torch": metadata.version("torch").partition("+")[0] + "+cu126"}
    assert {row.action for row in plan(store, config).values()} == {"reuse"}, "a build is no version"


def test_partitions_of_two_versions_never_mix(tmp_path, installed, monkeypatch):
    path = write_corpus(tmp_path / "texts")
    store, config = str(tmp_path / "store"), mini_config(path)
    clean_partition, calls = partition.clean_partition, []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        clean_partition(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(partition, "clean_partition", stopped)
        run_config(store, config, last_stage="clean")
    installed["ftfy"] = "99.1"
    session, _ = run_config(store, config, last_stage="clean")
    artifact = session.artifacts["clean"]
    assert artifact.manifest.packages["ftfy"] == "99.1"
    [old] = [key for key in session.store.keys("clean") if key != artifact.ref.key]
    assert old[:48] == artifact.ref.key[:48]
    assert len(artifact.folder.names("parts/clean")) > len(session.store.key_folder("clean", old).names("parts/clean"))
    again, _ = run_config(store, config, last_stage="clean")
    assert again.artifacts["clean"].ref == artifact.ref
    del installed["ftfy"]
    assert run_config(store, config, last_stage="clean")[1].actions == {"ingest": "reuse", "clean": "run"}


def test_artifacts_of_older_code_are_compared_by_what_they_recorded(tmp_path, installed):
    path = write_corpus(tmp_path / "texts")
    store, config = str(tmp_path / "store"), mini_config(path)
    session, _ = run_config(store, config, last_stage="clean")
    [now] = (tmp_path / "store" / "clean").iterdir()
    then = now.with_name(now.name[:48] + 16 * "0")  # the last digits were a part of the hash of all
    text = (now / session.run_id / "manifest.json").read_text().replace(now.name, then.name)
    old = json.loads(text)
    del old["packages"]["phonenumbers"], old["packages"]["pycld2"]
    (now / session.run_id / "manifest.json").write_text(json.dumps(old))
    now.rename(then)
    for record in (tmp_path / "store" / "runs").glob("*.json"):
        record.write_text(record.read_text().replace(now.name, then.name))
    installed["pycld2"] = "99.1"
    rows = plan(store, config)
    assert rows["clean"].action == "reuse" and rows["clean"].artifact.ref.key == then.name
    assert run_config(store, config, last_stage="clean")[1].actions["clean"] == "reuse"
    installed["ftfy"] = "99.1"
    assert plan(store, config)["clean"].why == f"ftfy {old['packages']['ftfy']} -> 99.1"


def test_declared_packages_are_dependencies_of_headrace(tmp_path):
    lines = [line for line in metadata.requires("headrace") or [] if line]
    known = {canonicalize_name(Requirement(line).name) for line in lines} | {"unicodedata", "charset-normalizer"}
    config = mini_config(write_corpus(tmp_path / "texts"))
    declared = {name for stage in config.stages for name in stage.packages(config.stage_config(stage.name))}
    assert {canonicalize_name(name) for name in declared} <= known
    assert "absent" not in provenance.declared_versions(sorted(declared)).values()


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
