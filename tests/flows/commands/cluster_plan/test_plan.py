import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_schemas.errors import ConfigError
from flows.cli import app
from flows.commands.cluster_plan.plan import number_of_bytes, plan_cluster, settings
from flows.config.run_config import load_run_config
from infra.planner.clusters import read_cluster
from infra.planner.layouts import Layout
from stages.pretrain.batch_plan import plan_batches

CONFIGS = Path(__file__).parents[4] / "configs"
DEMO, REFERENCE = str(CONFIGS / "demo.yaml"), str(CONFIGS / "reference.yaml")


def plan(*arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["plan", *arguments])


def planned(*arguments):
    result = plan(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_the_plan_of_a_cluster_ranks_layouts_by_time_and_by_money():
    answer = planned(DEMO, "--cluster", "8xH100", "--set", "pretrain.batch_tokens=65536", "--source-bytes", "60MB")
    steps = [row["step_seconds"] for row in answer["layouts"]]
    dollars = [row["dollars"] for row in answer["cheapest"]]
    assert steps == sorted(steps) and dollars == sorted(dollars)
    best = answer["layouts"][0]
    assert sum(best["seconds_by_part"].values()) == pytest.approx(best["step_seconds"])
    assert sum(best["memory_by_part"].values()) == pytest.approx(best["memory_bytes"])
    assert answer["network"]["parameters"] == sum(answer["network"]["parameters_by_part"].values())
    assert {"ingest", "clean", "dedup", "tokenize", "compress", "benchmark"} <= {
        row["stage"] for row in answer["costs"]
    }


@pytest.mark.parametrize("devices", ["1xH100", "8xA100-40GB", "64xTPU-v4", "6xH200", "1xCPU"])
def test_training_accepts_the_layouts_that_the_plan_proposes(devices):
    answer = planned(DEMO, "--cluster", devices, "--set", "pretrain.batch_tokens=196608")
    for row in [*answer["layouts"], *answer["cheapest"]]:
        config = load_run_config(DEMO, ["pretrain.batch_tokens=196608", "pretrain.precision=bf16", *row["settings"]])
        accepted = plan_batches(config.stage_config("pretrain"))
        assert accepted.layout.world_size == row["devices"]
        assert accepted.layout.data == row["layout"]["data"]


def test_what_does_not_fit_names_its_largest_part_and_the_smallest_cluster():
    result = plan(REFERENCE, "--cluster", "512xA100-80GB")
    assert result.exit_code == 0
    assert "nothing fits; the least memory needs" in result.stdout and "no cluster of such devices" in result.stdout
    answer = planned(REFERENCE, "--cluster", "1024xGB300", "--source-bytes", "570TB")
    assert answer["layouts"] == [] and answer["refused"][0]["largest_part"] == "activations"
    assert "activations takes" in answer["refused"][0]["why"]
    assert 1024 < answer["smallest_cluster"] <= 8192
    costs = {row["stage"]: row for row in answer["costs"]}
    assert costs["ingest"]["core_hours"] == pytest.approx(570e12 / 3e6 / 3600, rel=0.01)


def test_the_configured_layout_is_planned_beside_the_others():
    answer = planned(REFERENCE, "--cluster", "3840xGB300")
    assert answer["configured"]["fits"] and answer["configured"]["layout"] == answer["layouts"][0]["layout"]


def test_failures_and_pipeline_of_the_fastest_layout_are_simulated():
    answer = planned(REFERENCE, "--cluster", "4320xGB300")
    run, best = answer["simulated_failures"], answer["layouts"][0]
    assert run["low"] < best["goodput"] < run["high"]
    assert run["interval"] == pytest.approx(best["checkpoint_interval_seconds"], rel=0.1)
    assert "simulated   best checkpoint interval" in plan(DEMO, "--cluster", "8xH100").stdout
    pipeline = answer["simulated_pipeline"]
    assert pipeline["schedule"] == "1f1b" and pipeline["idle"]["zero-bubble"] < pipeline["idle"]["1f1b"]
    assert pipeline["idle"]["1f1b"] == pytest.approx(pipeline["planned_idle"], abs=0.01)


def test_a_cluster_that_hardly_ever_works_still_gets_an_answer(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("{device: H100, devices: 8, mtbf_hours: 1.0e-3}")
    answer = planned(DEMO, "--cluster", str(path))
    assert answer["simulated_failures"]["goodput"] == 0 < answer["layouts"][0]["days"] < float("inf")
    assert "10m 00s to restart: it hardly trains" in " ".join(plan(DEMO, "--cluster", str(path)).stdout.split())


@pytest.mark.parametrize("hours", ["1.0e-320", "0", "-5", "1.0e+308", ".inf", ".nan"])
def test_times_between_failures_that_no_device_has_are_refused(tmp_path, hours):
    """Smaller ones would never end the simulation, larger ones overflow."""
    path = tmp_path / "odd.yaml"
    path.write_text(f"{{device: H100, devices: 8, mtbf_hours: {hours}}}")
    with pytest.raises(ConfigError, match="mtbf_hours: expected mean device-hours"):
        read_cluster(str(path))


def test_a_batch_too_small_for_the_cluster_uses_a_part_of_it():
    answer = planned(DEMO, "--cluster", "4096xH100")
    assert max(row["devices"] for row in answer["layouts"]) < 4096


def test_layouts_as_settings():
    layout = Layout(data=2, tensor=4, pipeline=2, micro_batch=3, recompute="full", virtual=2)
    assert settings(layout) == [
        "pretrain.workers=16", "pretrain.micro_batch=3", "pretrain.layout.shard=1", "pretrain.layout.tensor=4",
        "pretrain.layout.pipeline=2", "pretrain.layout.context=1", "pretrain.layout.expert=1",
        "pretrain.layout.schedule=interleaved", "pretrain.layout.virtual_stages=2",
        "pretrain.recompute_activations=true",
    ]  # fmt: skip


def test_settings_replace_whatever_layout_the_config_has():
    """The reference config has shards, tensor, pipeline and context factors, and recomputes."""
    layout = Layout(data=4, pipeline=3, micro_batch=9)
    pretrain = load_run_config(REFERENCE, [*settings(layout), "pretrain.precision=bf16"]).stage_config("pretrain")
    accepted = plan_batches(pretrain)
    assert (accepted.layout.world_size, accepted.layout.data, accepted.layout.factors.pipeline) == (12, 4, 3)
    assert accepted.layout.factors.schedule == "1f1b" and not pretrain.recompute_activations


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "plan needs CONFIG"),
        (["--cluster", "8xH100"], "plan needs CONFIG"),
        ([DEMO, "--cluster", "8xnothing"], "no accelerator is called 'nothing'"),
        ([DEMO, "--cluster", ""], "expected a number of devices"),
        ([DEMO, "--cluster", "8xH100", "--source-bytes", "lots"], "--source-bytes is 'lots'"),
        ([DEMO, "--cluster", "8xH100", "--set", "pretrain.batch_tokens=100"], "less than one row"),
        ([DEMO, "--published", "x.csv"], "omit CONFIG"),
        ([DEMO, "--source-bytes", "1TB"], "--source-bytes is for a plan on a cluster"),
        (["--published", "missing.csv"], "missing.csv cannot be read"),
        ([DEMO, "--cluster", "8xH100", "--until", "clean"], "--until would change nothing"),
        ([DEMO, "--cluster", "8xH100", "--keep-versions", "--store", "x"], "--keep-versions and --store would change"),
        (["--published", "x.csv", "--set", "pretrain.seed=1"], "--set would change nothing"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, sentence):
    result = plan(*arguments)
    assert result.exit_code == 2
    assert sentence in result.output and "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "value"), [("570TB", 570 * 10**12), ("1.5 GiB", 1.5 * 2**30), ("2e9", 2e9), ("1_000", 1000), (None, None)]
)
def test_bytes_in_any_spelling(text, value):
    assert number_of_bytes(text) == value


@pytest.mark.parametrize("text", ["", "-5", "0", "1e30", "TB", "5 apples"])
def test_what_is_no_number_of_bytes(text):
    with pytest.raises(ConfigError, match="source-bytes"):
        number_of_bytes(text)


def test_published_rows_of_a_file_are_predicted(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(
        "model,hardware,gpus,layers,hidden,heads,vocab,seq_len,global_batch_seqs,fsdp,step_time_s,source\n"
        "MPT 7b,H100 80GB,128,32,4096,32,50368,2048,768,FULL_SHARD,1.2,llm-foundry\n"
        "MPT 7b,abacus,128,32,4096,32,50368,2048,768,FULL_SHARD,1.2,llm-foundry\n"
    )
    answer = planned("--published", str(path))
    (row,) = answer["rows"]
    low, high = row["step_seconds_interval"]
    assert low < row["step_seconds"] < high and row["assumptions"]
    assert answer["time_error_percent"] == pytest.approx(abs(row["time_error_percent"]))
    assert len(answer["refused"]) == 1 and "names no known accelerator" in answer["refused"][0]


def test_an_optional_stage_is_part_of_the_costs_only_if_it_is_on():
    config = load_run_config(DEMO)
    names = [row.stage for row in plan_cluster(config, read_cluster("8xH100"), 10**9).stages]
    assert names == [stage.name for stage in config.stages if stage.name != "pretrain"]
