"""Charts are drawn once for their data, whatever run shows them."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from flows.report import drawn_once
from flows.report.build import write_report
from flows.report.charts import Curve, curve_chart, frontier_chart
from tests.flows.report import synthetic


@pytest.fixture(autouse=True)
def nothing_drawn(monkeypatch):
    monkeypatch.setattr(drawn_once, "_drawn", {})


@pytest.fixture
def without_matplotlib(monkeypatch):
    """Importing it fails from the call on."""

    def forbid() -> None:
        drawn_once._drawn.clear()
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            monkeypatch.setitem(sys.modules, name, None)

    return forbid


def test_a_report_of_the_same_artifacts_takes_the_charts_of_an_earlier_one(tmp_path, without_matplotlib):
    store, record = str(tmp_path), synthetic.write_run(str(tmp_path))
    maker = record.stages["pretrain"].artifact.attempt
    first = Path(write_report(store, record.model_copy(update={"run_id": maker}))).read_text()
    without_matplotlib()
    again = Path(write_report(store, record.model_copy(update={"run_id": "quick-heron-0002"}))).read_text()
    assert charts(again) == charts(first) and len(charts(first)) >= 5


def test_a_chart_of_other_data_or_of_another_version_is_drawn(without_matplotlib, monkeypatch):
    curve = Curve("Loss", np.array([1.0, 2.0]), [3.0, 2.5], restarts=[1.0])
    page = f"<html>{curve_chart(curve)}</html>"
    without_matplotlib()
    drawn_once.remember(page)
    assert page == f"<html>{curve_chart(curve)}</html>"
    assert page == f"<html>{curve_chart(Curve('Loss', [1.0, 2.0], [3.0, 2.5], restarts=[1.0]))}</html>"
    for other in (Curve("Loss", [1.0, 2.0], [3.0, 2.5]), Curve("Loss", [1.0, 2.0], [3.0, 2.5000001], restarts=[1.0])):
        with pytest.raises(ImportError):
            curve_chart(other)
    with pytest.raises(ImportError):
        frontier_chart(["a", "b"], [2.0, 1.0], [1.0, 1.1], "Loss")
    monkeypatch.setattr(drawn_once, "_version", lambda file: "another")
    with pytest.raises(ImportError):
        curve_chart(curve)


@pytest.mark.parametrize("damage", [lambda page: page[:-40], lambda page: "", lambda page: page.replace("data-", "")])
def test_what_is_no_chart_is_not_taken(damage, without_matplotlib):
    curve = Curve("Loss", [1.0, 2.0], [3.0, 2.5])
    page = damage(f"<html>{curve_chart(curve)}</html>")
    without_matplotlib()
    drawn_once.remember(page)
    with pytest.raises(ImportError):
        curve_chart(curve)


def charts(page: str) -> list[str]:
    return re.findall(r"<svg data-drawn=.*?</svg>", page, re.DOTALL)
