import json
import os
import re
import socket

import psutil
import pytest

from data_schemas.errors import NotFoundError, UnreadableRecordError
from infra.store.records import report_once
from infra.store.runs import RunStore, new_run_id, process_of
from tests.infra.store.run_records import run_record


def test_runs_are_found_by_id_beginning_or_latest(any_store):
    runs = RunStore(any_store)
    with pytest.raises(NotFoundError, match="headrace run CONFIG"):
        runs.get("latest")
    for number, run_id in enumerate(["quiet-otter-1", "quiet-owl-2", "late-fox-3"]):
        runs.save(run_record(run_id, hour=number))
    assert runs.get("latest").run_id == "late-fox-3"
    assert runs.get("quiet-ot").run_id == "quiet-otter-1"
    with pytest.raises(NotFoundError, match=r"2 runs .* begin with 'quiet': quiet-owl-2, quiet-otter-1; give"):
        runs.get("quiet")


def test_newest_is_the_order_of_the_store_not_of_the_clocks(any_store):
    runs = RunStore(any_store)
    runs.save(run_record("of-an-older-version", hour=23))
    late, _ = runs.start(run_record("first", hour=22))  # the clock of its host is hours ahead
    early, _ = runs.start(run_record("second", hour=1))
    assert (late.sequence, early.sequence) == (1, 2)
    assert [run.run_id for run in runs.all()] == ["second", "first", "of-an-older-version"]
    assert runs.get("latest").run_id == "second"


@pytest.mark.parametrize("harm", ["newer field", "newer version", "truncated", "not an object", "empty"])
def test_an_unreadable_record_is_listed_and_the_others_are_read(any_store, harm, caplog):
    runs = RunStore(any_store)
    runs.start(run_record("good"))
    newer, _ = runs.start(run_record("newer"))
    fields = newer.model_dump(mode="json") | {"headrace_version": "9.1.0"}
    text = {
        "newer field": json.dumps(fields | {"colour": "red"}),
        "newer version": json.dumps(fields | {"run_record_version": 99}),
        "truncated": json.dumps(fields)[:-30],
        "not an object": "[]",
        "empty": "",
    }[harm]
    runs.folder.write("newer.json", text.encode())
    [unreadable] = runs.listing()[1]
    has_fields = harm.startswith("newer")
    assert unreadable.written_by == ("Headrace 9.1.0" if has_fields else "an unknown version")
    assert [run.run_id for run in runs.all()] == ["good"]
    report_once.cache_clear()
    assert runs.get("latest").run_id == "good"
    assert runs.get("goo").run_id == "good"
    [line] = caplog.messages
    assert line.startswith("skipped: ")
    problem = r"newer\.json is damaged .*; remove the file"
    if harm.startswith("n"):
        problem = r"newer\.json cannot be read by this version of Headrace .* written by .*use that version"
    assert re.search(problem, line)
    with pytest.raises(UnreadableRecordError, match=problem):
        runs.get("newer")


def test_a_record_of_a_version_without_claims_is_judged_by_its_process():
    here = run_record("a").model_copy(update={"host": socket.gethostname(), "pid": os.getpid()})
    mine = here.model_copy(update={"process_started": psutil.Process().create_time()})
    assert not process_of(mine).is_gone
    assert process_of(mine.model_copy(update={"process_started": mine.process_started - 60})).is_gone
    assert not process_of(mine.model_copy(update={"host": "elsewhere"})).is_gone


def test_run_ids_are_readable_and_differ():
    assert len({new_run_id() for _ in range(50)}) == 50
    assert all(part.isalnum() for part in new_run_id().split("-"))
