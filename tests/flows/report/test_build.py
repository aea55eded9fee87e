import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flows.report.build import render, stage_artifacts, write_report
from infra.runs import RunStore
from tests.flows.mini import mini_config, run_config, write_corpus

VOID = {"meta", "br", "hr", "img", "input", "link"}


class WellFormed(HTMLParser):
    """Checks that every element is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(store, record) of a finished mini run."""
    folder = tmp_path_factory.mktemp("report")
    session, _ = run_config(f"{folder}/store", mini_config(write_corpus(folder / "texts")))
    return f"{folder}/store", session.record


def test_the_page_is_well_formed_self_contained_and_has_every_section(finished):
    store, record = finished
    page = Path(write_report(store, record)).read_text()
    parser = WellFormed()
    parser.feed(page)
    assert parser.open == []
    shown = " ".join(parser.text)
    for heading in (
        "The corpus",
        "Pretraining",
        "Compression",
        "Benchmark",
        "Planned and measured",
        "Lineage",
        "Config",
    ):
        assert heading in shown
    for stage in record.stages.values():
        assert stage.artifact.label in shown
    attributes = re.findall(r'(?:src|href|action)\s*=\s*"([^"]*)"', page)
    assert all(value.startswith("#") for value in attributes), "nothing is fetched"
    assert not re.search(r"@import|url\((?!#)|<script|<link", page)
    assert page.count("<svg") == 7


def test_figures_are_those_of_the_artifacts(finished):
    store, record = finished
    artifacts = stage_artifacts(store, record)
    page = render(record, artifacts)
    for row in artifacts["benchmark"].read_table("scores.parquet").to_pylist():
        assert f"{row['value']:.3f}" in page
    for one in artifacts["compress"].manifest.metrics["passes"]:
        assert f"{one['bits_per_byte']:.4f}" in page


def test_the_same_run_gives_the_same_page(finished):
    store, record = finished
    artifacts = stage_artifacts(store, record)
    assert render(record, artifacts) == render(record, artifacts)


def test_a_run_that_stopped_early_shows_what_it_has(finished):
    store, record = finished
    early = record.model_copy(update={"stages": {name: record.stages[name] for name in ("ingest", "clean")}})
    page = render(early, stage_artifacts(store, early))
    assert "The corpus" in page
    assert "Pretraining" not in page
    nothing = record.model_copy(update={"stages": {}})
    WellFormed().feed(render(nothing, {}))


def test_text_cannot_break_out_of_the_page(finished):
    store, record = finished
    hostile = record.model_copy(update={"config_name": "<script>alert(1)</script>", "message": "</pre><img src=x>"})
    page = render(hostile, stage_artifacts(store, hostile))
    assert "<script>" not in page
    assert "<img" not in page


def test_the_report_of_a_store_in_memory_has_a_url(tmp_path):
    store = "memory://report-test"
    session, _ = run_config(store, mini_config(write_corpus(tmp_path / "texts")), last_stage="ingest")
    assert write_report(store, session.record) == f"{store}/reports/{session.run_id}/report.html"
    assert RunStore(store).get("latest").run_id == session.run_id
