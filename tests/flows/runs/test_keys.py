"""Keys depend on more than config and inputs: precision of the devices, versions of packages."""

import json
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from data_schemas.manifest import RunRecord
from flows.planning.planner import Planner
from infra.precision import Gpu, Processor
from infra.store import provenance
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore
from stages.benchmark.config import BenchmarkConfig
from stages.clean import partition
from stages.clean.stage import CleanStage
from tests.flows.mini import NAMES, interrupt, mini_config, plan, run_config, write_corpus
from tests.infra.store.run_records import run_record


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
