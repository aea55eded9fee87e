"""The one screen at the end of a run, by a store written by hand."""

import pyarrow as pa
import pytest

from data_schemas.errors import NotFoundError
from data_schemas.tables import SCORES
from flows.commands import summary
from flows.commands.show import print_run_scores, print_scores, run_json
from flows.commands.summary import print_summary
from flows.report.benchmark_scores import NotRun
from tests.flows.report import synthetic


@pytest.fixture
def screen(capsys, monkeypatch):
    """Prints at a terminal's width; returns the lines."""

    def lines(url, record, columns=100):
        monkeypatch.setattr(summary.console, "width", columns)
        print_summary(url, record)
        return capsys.readouterr().out.splitlines()

    return lines


def test_one_screen_has_stages_headline_and_report(tmp_path, screen):
    record = synthetic.write_run(str(tmp_path))
    lines = screen(str(tmp_path), record)
    text = "\n".join(lines)
    assert len(lines) <= 24 - (9 - len(record.stages))
    assert lines[0] == "run quiet-otter-3f9a (synthetic): finished in 2h 00m"
    assert "ingest     reused    30.0s" in text and "pretrain   ran     60m 00s" in text
    words = [" ".join(line.split()) for line in lines]
    assert "bits per byte 1.495 1.529 +2.27 %" in words
    assert "size on disk 5.28 MB 1.38 MB 3.8 times smaller" in words
    assert "decode, tokens/s 1,206 762 0.63 times as fast" in words
    assert "baselines bits per byte: xz 1.965, 5-gram bytes 2.065, unigram bytes 4.874" in words
    assert words[-1] == "all scores headrace show quiet-otter-3f9a --scores"
    assert "winograd" not in text


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal(tmp_path, screen, columns):
    record = synthetic.write_run(str(tmp_path))
    assert max(map(len, screen(str(tmp_path), record, columns))) <= min(columns, 100)


@pytest.mark.parametrize("last", list(synthetic.SECONDS))
def test_a_run_that_stopped_early_has_a_screen(tmp_path, screen, last):
    stages = list(synthetic.SECONDS)
    record = synthetic.write_run(str(tmp_path), stages[: stages.index(last) + 1])
    text = "\n".join(screen(str(tmp_path), record))
    assert last in text
    assert ("bits per byte" in text) == (last in ("compress", "benchmark"))
    assert ("final loss 2.689" in text) == (last == "pretrain")


def test_a_failed_run_shows_its_message_and_artifacts_that_are_gone(tmp_path, screen):
    record = synthetic.write_run(str(tmp_path), ["ingest", "clean"])
    (tmp_path / "clean").rename(tmp_path / "moved")
    record = record.model_copy(update={"status": "failed", "message": "No text was found."})
    text = "\n".join(screen(str(tmp_path), record))
    assert "failed" in text and "No text was found." in text
    assert "the artifact clean/" in text


def test_tasks_that_were_not_run_are_counted_and_shortened():
    reasons = [NotRun([f"GLUE {n}" for n in range(9)], "no data at " + "x" * 200)] + [
        NotRun([f"t{n}"], "?") for n in range(5)
    ]
    grid = summary._notes({}, summary.headline({}, []), reasons)
    assert grid.row_count == summary.MAX_REASONS + 1
    labels, lines = (list(column.cells) for column in grid.columns)
    assert labels == ["not run (14)", "", "", ""]
    assert str(lines[0]).startswith("GLUE 0, GLUE 1, 7 more: no data at")
    assert lines[-1] == "and 3 more tasks"


def test_all_scores_are_printed_on_request(tmp_path, capsys):
    record = synthetic.write_run(str(tmp_path))
    print_run_scores(str(tmp_path), record)
    words = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "held-out text bits per byte pretrained 1.495 1.427 - 1.569" in words
    assert "winograd accuracy random choice 0.500" in words
    with pytest.raises(NotFoundError, match="no benchmark results; it has: ingest"):
        print_run_scores(str(tmp_path), synthetic.write_run(str(tmp_path / "other"), ["ingest"]))


def test_tasks_without_a_score_follow_the_table(capsys):
    names = ("task", "model", "metric", "value", "low", "high", "higher_is_better", "items", "note")
    rows = [
        ("a", "pretrained", "m", 1.0, None, None, True, 1, None),
        ("b", "", "m", None, None, None, True, 0, "not run: no data"),
    ]
    print_scores(pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], SCORES).to_pylist())
    assert capsys.readouterr().out.splitlines()[-1] == "not run: b: no data"


def test_the_json_of_a_run_keeps_its_keys(tmp_path):
    record = synthetic.write_run(str(tmp_path))
    row = run_json(str(tmp_path), record)
    assert list(row) == ["run_id", "status", "config", "stages", "report", "links", "metrics", "pinned", "removed"]
    assert list(row["stages"][0]) == [
        "stage", "action", "why", "artifact", "seconds", "digest", "counts", "peak_memory_bytes",
        "estimate", "incomplete",
    ]  # fmt: skip
