"""The page of a plan: its figures are the plan's, its bars are to scale, and it stands alone."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.cluster_plan.changes import changes
from flows.commands.cluster_plan.page import cluster_page
from flows.commands.cluster_plan.plan import ClusterPlan, plan_cluster
from flows.commands.cluster_plan.stacks import COLORS, stacks
from flows.commands.cluster_plan.tables import run_time
from flows.config.run_config import load_run_config
from infra.planner.accelerators import GIB
from infra.planner.clusters import read_cluster

CONFIGS = Path(__file__).parents[4] / "configs"


def plan(cluster: str, config: str = "reference.yaml", *overrides: str) -> ClusterPlan:
    return plan_cluster(load_run_config(str(CONFIGS / config), list(overrides)), read_cluster(cluster))


@pytest.fixture(scope="module")
def reference() -> ClusterPlan:
    return plan("4320xGB300")


def test_the_page_shows_the_plan_and_loads_nothing(reference):
    page, best = cluster_page(reference, "reference"), reference.fitting[0]
    costs = reference.costs(best)
    for shown in (
        run_time(costs.seconds), f"{costs.utilization:.1%}", f"{best.memory_bytes / GIB:.0f} GiB",
        f"{best.layout.devices:,} devices", best.layout.label(), f"--set pretrain.layout.tensor={best.layout.tensor}",
    ):  # fmt: skip
        assert shown in page, shown
    assert "nothing fits</td>" in page, "devices with half the memory"
    assert not re.search(r'(?:src|href)="(?!#)', page) and "<script" not in page


def test_names_cannot_inject_markup(reference):
    assert "<script>" not in cluster_page(reference, "<script>alert(1)</script>")


def test_a_plan_that_fits_nowhere_says_what_would_do():
    page = cluster_page(plan("1024xGB300"), "reference")
    assert "nothing fits; the least memory needs" in page and "such devices would do" in page
    assert "Memory of the fullest device" in page and "Risk from failures" not in page


def test_a_better_cluster_is_never_slower_and_the_factors_are_those_named(reference):
    planned = reference.costs(reference.fitting[0])
    found = {change.name: change.costs for change in changes(reference)}
    faster, slower = found["network between nodes twice as fast"], found["network between nodes half as fast"]
    tenth = found["network between nodes a tenth as fast"]
    assert faster.seconds < planned.seconds < slower.seconds < tenth.seconds
    assert found["devices with twice the memory"].seconds <= planned.seconds
    assert found["twice as many devices"].seconds <= planned.seconds
    assert found["half as many devices"] is found["devices with half the memory"] is None, "nothing fits"
    assert found["failures four times as frequent"].goodput < planned.goodput


def test_bars_are_to_scale_and_the_smallest_of_many_parts_are_together():
    drawn = stacks([("a", "", {"x": 30.0, "y": 10.0}), ("b", "", {"y": 60.0, "z": 0.0})], "GiB", 10.0, limit=80.0)
    assert [[piece.length for piece in row.pieces] for row in drawn.rows] == [[12.5, 37.5], [75.0]]
    assert (drawn.mark, drawn.legend) == (100.0, [(COLORS[0], "y"), (COLORS[1], "x")])
    assert drawn.rows[0].pieces[1].title == "x 3 GiB"
    many = {f"part {number}": float(20 - number) for number in range(12)}
    [row] = stacks([("a", "", many)], "s", 1.0).rows
    assert len(row.pieces) == len(COLORS) and row.pieces[-1].title == "others 42 s"
    assert sum(piece.length for piece in row.pieces) == pytest.approx(100, abs=0.1)


def test_the_command_writes_the_page_and_refuses_what_it_cannot(tmp_path):
    demo, target = str(CONFIGS / "demo.yaml"), tmp_path / "plan.html"
    command = ["plan", demo, "--cluster", "8xH100", "--set", "pretrain.batch_tokens=65536", "--html"]
    result = CliRunner().invoke(app, [*command, str(target)])
    assert result.exit_code == 0, result.output
    assert "demo on 8 x H100" in target.read_text() and list(tmp_path.iterdir()) == [target]
    refused = CliRunner().invoke(app, [*command, str(tmp_path / "absent" / "plan.html")])
    assert refused.exit_code == 2 and "cannot be written (No such file or directory)" in refused.output
    alone = CliRunner().invoke(app, ["plan", demo, "--html", str(target)])
    assert alone.exit_code == 2 and "add --cluster" in alone.output
