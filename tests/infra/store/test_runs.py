import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from data_schemas.errors import NotFoundError
from data_schemas.manifest import RunRecord
from infra.store.runs import RunStore, claim, close, is_alive, new_run_id


def record(run_id: str, hour: int = 0) -> RunRecord:
    return RunRecord(
        run_id=run_id, config_name="c", config={}, config_digest="d", status="running", host="", pid=0,
        process_started=0, started=datetime(2026, 11, 1, hour, tzinfo=UTC),
    )  # fmt: skip


def test_runs_are_found_by_id_beginning_or_latest(any_store):
    runs = RunStore(any_store)
    with pytest.raises(NotFoundError, match="headrace run CONFIG"):
        runs.get("latest")
    for number, run_id in enumerate(["quiet-otter-1", "quiet-owl-2", "late-fox-3"]):
        runs.save(record(run_id, hour=number))
    assert runs.get("latest").run_id == "late-fox-3"
    assert runs.get("quiet-ot").run_id == "quiet-otter-1"
    with pytest.raises(NotFoundError, match=r"2 runs .* begin with 'quiet': quiet-owl-2, quiet-otter-1; give"):
        runs.get("quiet")


def test_a_run_is_alive_only_while_its_very_process_lives():
    mine = claim(record("a"))
    assert is_alive(mine)
    assert not is_alive(mine.model_copy(update={"process_started": mine.process_started - 60}))  # the pid was reused
    assert not is_alive(close(mine, "finished"))
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert not is_alive(mine.model_copy(update={"pid": child.pid}))
    assert mine.pid == os.getpid()


def test_run_ids_are_readable_and_differ():
    assert len({new_run_id() for _ in range(50)}) == 50
    assert all(part.isalnum() for part in new_run_id().split("-"))
