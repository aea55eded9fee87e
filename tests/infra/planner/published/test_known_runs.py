"""The visible rows of published runs, if the file is there: the accuracy that docs/results/planner.md states."""

from pathlib import Path

import pytest

from infra.planner.published.accuracy import (
    MEMORY_INTERVAL,
    TIME_INTERVAL,
    errors_by_block,
    held_out_coverage,
    interval,
    predict,
    ratios_by_block,
)
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


@pytest.mark.skipif(not FILE.is_file(), reason="the table of published runs is not here")
def test_intervals_are_those_of_the_rows_and_hold_rows_of_other_blocks():
    runs = [run for run in map(interpret, read_rows(str(FILE))) if not isinstance(run, str)]
    predictions = [predict(run) for run in runs]
    for kind, stated in (("time", TIME_INTERVAL), ("memory", MEMORY_INTERVAL)):
        found = interval(list(ratios_by_block(predictions, kind).values()))
        assert found == pytest.approx(stated, abs=0.02)
    rows, blocks = held_out_coverage(predictions)
    assert rows > 0.9 and blocks > 0.85


def test_an_interval_leaves_out_a_twentieth_of_rows_and_of_blocks_at_each_end():
    large, odd = [1 + step / 1_000 for step in range(100)], [[2.0], [0.5]]
    assert interval([large]) == (1.004, 1.094)
    assert interval([large, *odd]) == (0.5, 2.0)  # each of three blocks weighs more than a twentieth
    assert interval([large] * 40 + odd) == (1.002, 1.097)
