import re
from pathlib import Path

import pytest

from data_schemas.errors import DamagedArtifactError
from flows.report.build import render, write_report
from flows.runs.artifacts import stage_artifacts
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore
from tests.flows.mini import mini_config, run_config, write_corpus
from tests.flows.report import synthetic
from tests.flows.report.page import Page

SECTIONS = {
    "The corpus": "ingest",
    "Pretraining": "pretrain",
    "Compression": "compress",
    "Benchmark": "benchmark",
    "Generated text": "benchmark",
    "Planned and measured": "ingest",
    "Lineage": "ingest",
    "Config": "",
}


@pytest.fixture
def written(tmp_path):
    """(store, record) of the run written by hand."""
    return str(tmp_path), synthetic.write_run(str(tmp_path))


def rendered(store, record) -> Page:
    return Page(render(record, stage_artifacts(store, record)))


def test_the_report_of_a_real_run_is_one_self_contained_page_with_every_section(finished):
    store, record = finished
    page = Page(Path(write_report(store, record)).read_text(encoding="utf-8"))
    page.assert_self_contained()
    assert all(section in page.text for section in SECTIONS)
    assert all(outcome.artifact.label in page.text for outcome in record.stages.values())
    assert page.tags.count("svg") == 5


def test_figures_are_those_of_the_artifacts(finished):
    store, record = finished
    artifacts = stage_artifacts(store, record)
    page = rendered(store, record)
    for row in artifacts["benchmark"].read_table("scores.parquet").to_pylist():
        shown = row["note"].removeprefix("not run: ") if row["value"] is None else f"{row['value']:.3f}"
        assert shown in page.text
    for row in artifacts["compress"].manifest.metrics["passes"]:
        assert f"{row['bits_per_byte']:.4f}" in page.text
    assert f"{artifacts['tokenize'].manifest.counts['train_tokens']:,} training tokens" in page.text


def test_headline_figures_and_ratios_by_hand(written):
    page = rendered(*written)
    page.assert_self_contained()
    for shown in (
        "1.495 pretrained network, 24 % below the best baseline; lower is better",  # 1 - 1.495 / 1.965
        "5.28 MB → 1.38 MB 3.8 times smaller, +2.27 % bits per byte",  # 1.529 / 1.495, the benchmark's
        "25 MB 4,800 documents, 1 MB held out",
        "6 stages run, 1 reused; 2h 00m from start to end",
        "too few words 1,500 18.8 %",
        "resumed from the checkpoint of step 20,000",
        "18.0 s 45.0 s 2.50 1 GB 1.5 GB 1.50",
        "reused from older-otter-0001",
        "commit 0123456789ab, with uncommitted changes",
    ):
        assert shown in page.text, shown
    assert "never" not in page.text, "a rule that dropped nothing is not listed"
    assert "timeout" not in page.text, "a setting that is not set is not listed"
    assert page.html.count('data-label="time, ratio"') == 7
    assert re.findall(r'class="n off" data-label="([^"]*)"', page.html).count("time, ratio") == 1, "only dedup"


def test_scores_are_folded_by_task_behind_a_row_with_the_models_and_the_best_baseline(written):
    page = rendered(*written)
    assert page.html.count('<details class="task">') == 2
    assert "held-out text bits per byte, lower is better 1.495 1.529 1.965 xz metric model" in page.text
    assert "winograd accuracy 0.475 0.500 random choice metric model" in page.text
    dots = [float(left) for left in re.findall(r'class="dot network" style="left:([\d.]+)%"', page.html)]
    assert dots == [pytest.approx(100 * 1.495 / 4.965, abs=0.01), 47.5], "the scale holds the intervals"
    assert 'class="range network" style="left:32.5%;width:30.0%"' in page.html


def test_settings_of_passes_are_words_and_tables_scroll_in_their_box(finished):
    page = rendered(*finished)
    assert "sparsity 0.5, rounds 2" in page.text and "recovery 2,048 tokens" in page.text
    assert "recovery: tokens 2,048, batch tokens 512" in page.text, "all settings, folded"
    for written_out in ("{'", "': ", "None", "True"):
        assert written_out not in page.text.split("Generated text")[0], written_out
    assert page.html.count("<table") == page.html.count('<div class="scroll"><table')


@pytest.mark.parametrize("last", list(synthetic.SECONDS))
def test_a_run_that_stopped_early_shows_the_sections_it_has(tmp_path, last):
    stages = list(synthetic.SECONDS)
    done = stages[: stages.index(last) + 1]
    record = synthetic.write_run(str(tmp_path), done)
    page = rendered(str(tmp_path), record)
    page.assert_self_contained()
    for section, stage in SECTIONS.items():
        assert (f"<h2>{section}</h2>" in page.html) == (stage in ["", *done]), section


def test_a_run_without_any_stage_has_a_page(written):
    store, record = written
    page = rendered(store, record.model_copy(update={"stages": {}, "status": "failed", "message": "No text found."}))
    page.assert_self_contained()
    assert "failed" in page.text
    assert "No text found." in page.text


def test_text_cannot_break_out_of_the_page(written):
    store, record = written
    hostile = synthetic.HOSTILE
    changed = {"config_name": hostile, "message": hostile, "config": {"ingest": {"path": hostile}}}
    page = rendered(store, record.model_copy(update=changed))
    page.assert_self_contained()
    assert page.text.count(hostile) >= 5, "shown as it is, twice as a sample"


def test_what_is_gone_is_named_and_what_is_damaged_is_an_error(written):
    store, record = written
    log = ArtifactStore(store).open(record.stages["pretrain"].artifact)
    log.folder.local_path(log.location("training_log.jsonl")).write_text("{}\n")
    with pytest.raises(DamagedArtifactError, match=r"training_log\.jsonl.*headrace rerun pretrain"):
        write_report(store, record)
    log.folder.remove()
    page = rendered(store, record)
    assert "omitted here: pretrain." in page.text
    assert "<h2>Pretraining</h2>" not in page.html


def test_an_input_that_is_not_of_this_run_is_marked(written):
    store, record = written
    assert "not this run’s" not in rendered(store, record).text
    other = record.stages["ingest"].artifact.model_copy(update={"attempt": "other", "digest": "9" * 64})
    commit = synthetic.commit(store, "clean", "another-attempt", {"documents": other})
    stages = {**record.stages, "clean": record.stages["clean"].model_copy(update={"artifact": commit})}
    assert rendered(store, record.model_copy(update={"stages": stages})).text.count("not this run’s") == 1


def test_the_same_run_gives_the_same_page_and_a_long_log_a_small_one(written):
    store, record = written
    page = rendered(store, record).html
    assert page == rendered(store, record).html
    assert len(page) < 200_000, "five thousand rows of log are thinned"


def test_the_report_of_a_store_in_memory_has_a_url(tmp_path):
    store = "memory://report-test"
    session, _ = run_config(store, mini_config(write_corpus(tmp_path / "texts")), last_stage="ingest")
    assert write_report(store, session.record) == f"{store}/reports/{session.run_id}/report.html"
    assert RunStore(store).get("latest").run_id == session.run_id
