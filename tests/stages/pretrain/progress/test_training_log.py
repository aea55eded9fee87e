import json
import tempfile
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.errors import FencedError
from infra.store.claims import FencedFolder, RunClaims
from infra.store.filesystem import Folder
from stages.pretrain.progress import log_files, training_log
from stages.pretrain.progress.log_files import RecordReader, RecordWriter
from stages.pretrain.progress.training_log import Event, LogReader, LogRow, TrainingLog, TrainingOutcome, read_log


def log_row(step: int, seconds: float = 1.0) -> LogRow:
    return LogRow(step, step * 100, 1.0, 1e-3, 0.5, seconds)


def steps_of(log: LogReader) -> list[int]:
    return [row["step"] for row in log.rows]


@pytest.fixture
def work(any_store) -> Folder:
    return Folder(any_store)


def test_a_resumed_log_drops_the_rows_after_its_checkpoint(work):
    log = TrainingLog(work, 0, device_flops=1e12)
    for step in (10, 20, 30):
        log.append(log_row(step, step / 10))
        log.sample(step, [f"text \u2028 {step}"])
    log.record(Event(25, "skipped", "loss 9"))
    resumed = TrainingLog(work, 20, device_flops=2e12)
    assert (steps_of(read_log(work)), read_log(work).starts) == ([10, 20], [0, 20])
    resumed.append(log_row(30, 7.0))
    outcome = TrainingOutcome.read(work)
    assert [row["seconds"] for row in outcome.log] == [1.0, 2.0, 7.0]
    assert (outcome.starts, outcome.device_flops) == ([0, 20], 2e12)
    assert [sample["texts"] for sample in outcome.samples] == [["text \u2028 10"], ["text \u2028 20"]]
    assert [event["step"] for event in outcome.events] == [25], "what happened before the stop stays"


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("rows"), st.integers(1, 7)),
        st.tuples(st.just("cut"), st.integers(0, 60)),
        st.tuples(st.just("start"), st.integers(0, 60)),
        st.tuples(st.just("read"), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=40)
@given(ACTIONS)
def test_a_reader_that_follows_a_log_agrees_with_a_list(actions):
    """On an object store in parts of three rows, against a plain list that is cut and appended to."""
    for url in (f"memory://log-{uuid.uuid4().hex}", None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(log_files, "PART_RECORDS", 3)
            _follow(actions, url)


def _follow(actions, url) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Folder(url or folder)
        log, follower, expected = TrainingLog(work, 0), LogReader(work), []
        for action, number in actions:
            if action == "rows":
                last = expected[-1] if expected else 0
                for step in range(last + 1, last + 1 + number):
                    log.append(log_row(step))
                    expected.append(step)
            elif action == "read":
                follower.update()
                assert steps_of(follower) == expected
            else:
                expected = [step for step in expected if step <= number]
                if action == "cut":
                    log.truncate(number)
                else:
                    log = TrainingLog(work, number)
        follower.update()
        assert steps_of(follower) == steps_of(read_log(work)) == expected


def test_a_row_costs_the_same_however_long_the_log_is(tmp_path):
    """Bytes that the 2,000th row writes: on a disk its own, elsewhere those of one part."""
    written = []

    class Counted(Folder):
        def write(self, path, data):
            written.append(len(data))
            super().write(path, data)

        def append(self, path, data, sync=False):
            written.append(len(data))
            super().append(path, data, sync)

    for url in (str(tmp_path), f"memory://log-{uuid.uuid4().hex}"):
        log = TrainingLog(Counted(url), 0)
        for step in range(1, 2_001):
            log.append(log_row(step))
        line = len(json.dumps({"row": log_row(2_000).as_json()})) + 1
        assert written[-1] <= line * (1 if url == str(tmp_path) else log_files.PART_RECORDS)


def test_a_torn_last_line_is_dropped_and_other_damage_is_an_event(tmp_path):
    work = Folder(str(tmp_path))
    log = TrainingLog(work, 0)
    for step in (10, 20, 30, 40):
        log.append(log_row(step))
    [_, live] = sorted((tmp_path / "log").iterdir())
    lines = live.read_bytes().splitlines(keepends=True)
    live.write_bytes(b"".join(lines[:3]) + lines[3][:-9])
    assert steps_of(read_log(work)) == [10, 20, 30]
    follower = read_log(work)
    live.write_bytes(b"".join(lines))  # the rest of the line arrives
    follower.update()
    assert steps_of(follower) == [10, 20, 30, 40]
    live.write_bytes(lines[0] + b"\0" * 40 + lines[2][30:] + lines[3])
    TrainingLog(work, 40)
    assert steps_of(read_log(work)) == [10, 40]
    [event] = read_log(work).events
    assert (event["kind"], event["detail"]) == ("damaged log", "1 lines could not be read and are left out")


@pytest.mark.parametrize(
    "line",
    [{"row": {"loss": 1.0}}, {"row": 5}, {"row": {"step": "x"}}, {"cut": None}, {"start": {}}, {"start": 3},
     {"gradient": {"step": 10}}, {"event": []}, {"sample": None}],
)  # fmt: skip
def test_a_record_of_another_version_or_altered_is_left_out(work, line):
    log = TrainingLog(work, 0)
    log.append(log_row(10))
    log._records.append(line)
    log.append(log_row(20))
    assert (steps_of(read_log(work)), read_log(work).damaged_lines) == ([10, 20], 1)
    TrainingLog(work, 20)
    assert (steps_of(read_log(work)), read_log(work).starts) == ([10, 20], [0, 20])
    assert [event["kind"] for event in read_log(work).events] == ["damaged log"]


def test_a_start_that_was_killed_before_its_first_file_loses_nothing(work):
    log = TrainingLog(work, 0)
    log.append(log_row(10))
    work.write("log/000009-000001-00000000-000001.jsonl", b'{"row": {"step": 99}}\n')
    assert steps_of(read_log(work)) == [10]
    TrainingLog(work, 10).append(log_row(20))
    assert steps_of(read_log(work)) == [10, 20]


def test_an_owner_that_was_superseded_cannot_spoil_the_log(any_store):
    """It is refused; what it wrote in the moment between the check and the write is not read."""
    claims = RunClaims(Folder(f"{any_store}/run.claims"), "run")
    works = []
    for number in (1, 2):
        claim = claims.take(number)
        assert claim is not None
        works.append(FencedFolder(f"{any_store}/work", claim))
        if number == 1:
            first = TrainingLog(works[0], 0)
            first.append(log_row(10))
            first.append(log_row(20))
    second = TrainingLog(works[1], 10)
    for write in (lambda: first.append(log_row(30)), lambda: TrainingLog(works[0], 10), first.sync):
        if works[0].is_local or write != first.sync:
            with pytest.raises(FencedError):
                write()
    object.__setattr__(works[0].claim, "check", lambda: None)  # paused between check and write
    first.append(log_row(30))
    TrainingLog(works[0], 10).append(log_row(20, 777.0))
    second.append(log_row(20, 2.0))
    assert [row["seconds"] for row in read_log(works[1]).rows] == [1.0, 2.0]


def test_the_log_of_an_earlier_version_is_continued(work):
    rows = [log_row(step).as_json() for step in (10, 20, 30)]
    log = {"rows": rows, "starts": [0], "events": [], "samples": [], "device_flops": 1.0}
    work.write("log.json", json.dumps(log).encode())
    TrainingLog(work, 20).append(log_row(30, 5.0))
    assert steps_of(read_log(work)) == [10, 20, 30]
    assert read_log(work).starts == [0, 20]


def test_the_time_to_the_first_step_is_that_of_the_stage_that_waited_for_it(work, monkeypatch):
    """A log holds the first step of every process group: of earlier stages, and of workers that were started again."""
    for second, first_step in ((105.0, 0), (250.0, 20), (270.0, 20)):
        monkeypatch.setattr(training_log.time, "time", lambda second=second: second)
        TrainingLog(work, first_step)
    outcome = TrainingOutcome.read(work)
    waits = {started: outcome.startup_seconds(started) for started in (100.0, 240.0, 250.0, 271.0)}
    assert waits == {100.0: 5.0, 240.0: 10.0, 250.0: 0.0, 271.0: None}


def test_a_log_of_a_version_without_these_times_has_no_time_to_the_first_step(work):
    RecordWriter(work, [{"start": {"starts": [0], "device_flops": 1.0}}, {"row": log_row(10).as_json()}])
    assert TrainingOutcome.read(work).startup_seconds(0.0) is None


def test_a_log_that_is_replaced_while_it_is_read_is_read_again(work, monkeypatch):
    TrainingLog(work, 0).append(log_row(10))
    reader = RecordReader(work)
    names = Folder.names

    def replaced(folder, path=""):
        found = names(folder, path)
        monkeypatch.setattr(Folder, "names", names)
        TrainingLog(work, 10).append(log_row(20))
        return found

    monkeypatch.setattr(Folder, "names", replaced)
    is_new, records = reader.read()
    assert is_new and [record["row"]["step"] for record in records if "row" in record] == [10, 20]


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
