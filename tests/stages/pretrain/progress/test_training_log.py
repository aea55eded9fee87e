import json

import pytest

from infra.store.filesystem import Folder
from stages.pretrain.progress.training_log import LogRow, TrainingLog, TrainingOutcome, read_log


def log_row(step: int, seconds: float) -> LogRow:
    return LogRow(step, step * 100, 1.0, 1e-3, 0.5, seconds)


def test_a_resumed_log_drops_the_rows_after_its_checkpoint():
    work = Folder("memory://training-log")
    log = TrainingLog(work, 0)
    for step in (10, 20, 30):
        log.append(log_row(step, step / 10))
    TrainingLog(work, 20).append(log_row(30, 7.0))
    log = read_log(work)
    assert [row["step"] for row in log["rows"]] == [10, 20, 30]
    assert log["starts"] == [0, 20]
    json.dumps(log)


def test_throughput_is_measured_within_one_process_group():
    """Steps 1-20 at 10 a second; killed; resumed from 20 and 30 more at 5 a second."""
    log = [log_row(10, 1.0), log_row(20, 2.0), log_row(30, 2.0), log_row(40, 4.0), log_row(50, 6.0)]
    outcome = TrainingOutcome([row.as_json() for row in log], [0, 20], [], [], 0.0)
    assert [interval["tokens_per_second"] for interval in outcome.throughput()] == [1000, 1000, 500, 500, 500]
    assert outcome.training_seconds == pytest.approx(8.0)
    assert outcome.tokens_per_second == 500


def test_a_start_before_the_first_checkpoint_counts_from_zero_again():
    outcome = TrainingOutcome([log_row(10, 2.0).as_json()], [0, 0], [], [], 0.0)
    assert outcome.training_seconds == 2.0
