"""The visible rows of published runs, if the file is there: the accuracy that docs/results/planner.md states."""

from pathlib import Path

import pytest

from infra.planner.published.accuracy import errors_by_block, predict
from infra.planner.published.interpretation import interpret
from infra.planner.published.rows import read_rows

FILE = Path(__file__).parents[5] / "shared" / "research" / "published_runs.csv"


@pytest.mark.skipif(not FILE.is_file(), reason="the table of published runs is not here")
def test_blind_predictions_are_as_good_as_stated():
    rows = [row for row in read_rows(str(FILE)) if row.get("tp") or row.texts["fsdp"]]
    runs = [run for run in map(interpret, rows) if not isinstance(run, str)]
    time = {block.block: block for block in errors_by_block([predict(run) for run in runs])}
    for block in ("A100-40GB", "H100-80GB", "H100-80GB large", "H100-80GB FP8"):
        assert time[f"llm-foundry {block}"].mean < 8
    assert time["Megatron-Core"].mean < 8
    assert time["all others"].within_15 > 0.8
