from dataclasses import replace
from datetime import timedelta

import pytest

from data_schemas.manifest import Estimate, Volume
from data_schemas.stage_costs import RunPlan
from flows.report.build import render
from flows.report.costs import costs, whole_plan
from flows.runs.artifacts import stage_artifacts
from tests.flows.report.page import Page
from tests.flows.report.synthetic import BEGUN, write_run


def with_costs(manifest, planned: float, seconds: float, **changes):
    estimate = Estimate(
        seconds=planned, peak_memory_bytes=10**9, flops=2e15, written_bytes=1_000, bits_per_byte=2.0, output=Volume()
    )
    return manifest.model_copy(
        update={"estimate": estimate, "ended": BEGUN + timedelta(seconds=seconds), "started": BEGUN, **changes}
    )


@pytest.fixture
def pretrain(tmp_path):
    """(record, artifacts, manifest) of a run whose pretraining has all figures."""
    record = write_run(str(tmp_path), ("pretrain",))
    artifacts = stage_artifacts(str(tmp_path), record)
    score = {"metric": "bits per byte", "model": "pretrained", "value": 1.9}
    scores = [{**score, "model": "xz", "value": 9.0}, {**score, "metric": "accuracy", "value": 0.1}, score]
    figures = {"flops_per_token": 1e9, "tokens": 3_000_000, "scores": scores}
    metrics = artifacts["pretrain"].manifest.metrics | figures
    manifest = artifacts["pretrain"].manifest.model_copy(update={"metrics": metrics})
    return record, artifacts, manifest


@pytest.mark.parametrize(
    ("planned", "seconds", "far_off"), [(100, 125, False), (100, 126, True), (100, 80, False), (100, 79, True)]
)
def test_what_is_off_by_more_than_a_quarter_is_marked(pretrain, planned, seconds, far_off):
    record, _, manifest = pretrain
    [row] = costs({"pretrain": with_costs(manifest, planned, seconds)}, record)
    assert (row.time.ratio, row.time.far_off) == (f"{seconds / planned:.2f}", far_off)
    by_name = {pair.name: pair for pair in row.others}
    assert (by_name["FLOPs"].ratio, by_name["FLOPs"].far_off) == ("1.50", True), "3e15 of 2e15"
    assert (by_name["bits per byte"].planned, by_name["bits per byte"].measured) == ("2.000", "1.900")
    assert (by_name["bits per byte"].ratio, by_name["bits per byte"].far_off) == ("0.95", False)
    assert by_name["bytes written"].planned == "1 kB"


def test_a_part_of_a_stage_is_compared_with_no_plan(pretrain):
    record, artifacts, manifest = pretrain
    part = with_costs(manifest, 100, 10, incomplete=("training was restarted",))
    [row] = costs({"pretrain": part}, record)
    assert (row.time.planned, row.time.measured, row.time.ratio) == ("100.0 s", "10.0 s", "")
    assert row.memory.ratio == "1.50", "memory is that of every try"
    page = Page(render(record, {"pretrain": replace(artifacts["pretrain"], manifest=part)}))
    assert "training was restarted" in page.text


def test_the_plan_from_before_the_run_is_that_of_the_stages_that_ran(pretrain):
    record, _, manifest = pretrain
    measured = {"pretrain": with_costs(manifest, 100, 130)}
    hour = Estimate(seconds=3_600, peak_memory_bytes=1, output=Volume())
    plan = RunPlan(run_id=record.run_id, planned={"pretrain": hour, "benchmark": hour})
    assert whole_plan(plan, measured, record) == (
        "Before the run started, the plan of the stages that it ran was 60m 00s; they took 2m 10s; 1 more of the "
        "plan did not run."
    )
    assert whole_plan(None, measured, record) == whole_plan(plan, {}, record) == ""
